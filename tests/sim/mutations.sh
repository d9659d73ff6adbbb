#!/usr/bin/env bash
# Red mutations: breaks one promise at a time in a copy of the tree, and shows that the named test notices.
#
#   tests/sim/mutations.sh            all of them
#   tests/sim/mutations.sh wake       those whose name has "wake" in it
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# A folder of its own: cargo would take what was built of the copy for what was built of the tree.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/mutations RUST_BACKTRACE=0

git -C "$root" ls-files -coz --exclude-standard | (cd "$root" && xargs -0 cp --parents -t "$copy" 2>/dev/null) || true
failed=0
# Those of the simulation, and those of the store of a cluster against real servers (NATS_SERVER names one).
for mutation in "$root"/tests/{sim,cluster}/mutations/*"${1:-}"*.patch; do
    [ -e "$mutation" ] || continue
    name=$(basename "$mutation" .patch)
    case $mutation in
        */cluster/*) manifest=Cargo.toml ;;
        *) manifest=tests/sim/Cargo.toml ;;
    esac
    # The first lines of a patch say which tests must turn red: `# scenarios some_test`.
    patch --directory "$copy" --strip 1 --quiet --forward < "$mutation"
    while read -r _ crate test; do
        if output=$(cd "$copy" && cargo test --quiet --offline --manifest-path "$manifest" --test "$crate" "$test" 2>&1); then
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
