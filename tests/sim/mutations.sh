#!/usr/bin/env bash
# Red mutations: breaks one promise at a time in a copy of the tree, and shows that the named test notices.
#
#   tests/sim/mutations.sh            all of them
#   tests/sim/mutations.sh wake       those whose name has "wake" in it
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/own} RUST_BACKTRACE=0

git -C "$root" ls-files -coz --exclude-standard | (cd "$root" && xargs -0 cp --parents -t "$copy" 2>/dev/null) || true
failed=0
for mutation in "$root"/tests/sim/mutations/*"${1:-}"*.patch; do
    name=$(basename "$mutation" .patch)
    # The first lines of a patch say which tests must turn red: `# scenarios some_test`.
    patch --directory "$copy" --strip 1 --quiet --forward < "$mutation"
    while read -r _ target test; do
        if output=$(cd "$copy" && cargo test --quiet --offline --manifest-path tests/sim/Cargo.toml --test "$target" "$test" 2>&1); then
            echo "NOT NOTICED  $name by $test"
            failed=1
        elif ! grep -q 'panicked at' <<<"$output"; then
            echo "BROKEN       $name: $test failed without a panic: $(grep -m1 -i error <<<"$output" | cut -c1-160)"
            failed=1
        else
            echo "red          $name"
            echo "             $test: $(grep -m1 -A2 "panicked at" <<<"$output" | grep -v 'panicked at' | tr '\n' ' ' | cut -c1-160)"
        fi
    done < <(grep '^# ' "$mutation")
    patch --directory "$copy" --strip 1 --quiet --reverse < "$mutation"
done
exit "$failed"
