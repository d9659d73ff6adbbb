"""What an order processor has to have received when the runner closes its input."""

import json
import sys
import threading

from common import WITHIN_S, name_of, ok

ORDERS = [order["orderId"] for order in json.loads(name_of("orders"))]
# What the processor does with them; the others it takes.
AGAIN, BAD = 7, 13


class Received:
    def __init__(self) -> None:
        self.counts, self.dead = {}, []
        self.changed = threading.Condition()

    def order(self, number: int) -> str:
        """Counts an order, and tells what to answer."""
        with self.changed:
            self.counts[number] = self.counts.get(number, 0) + 1
            self.changed.notify_all()
            if number == BAD:
                return "DROP"
            return "RETRY" if number == AGAIN and self.counts[number] == 1 else "SUCCESS"

    def letter(self, number: int) -> None:
        with self.changed:
            self.dead.append(number)
            self.changed.notify_all()

    def missing(self) -> list:
        missing = [number for number in ORDERS if self.counts.get(number, 0) < (2 if number == AGAIN else 1)]
        return missing + [f"dead letter {BAD}"] * (BAD not in self.dead)

    def told(self) -> None:
        """Waits for the end of the input, and then for what is still missing."""
        print("ready", flush=True)
        assert not sys.stdin.read(), "an order processor takes no orders from the runner"
        with self.changed:
            complete = self.changed.wait_for(lambda: not self.missing(), WITHIN_S)
        assert complete, f"missing {self.missing()}; received {self.counts}, dead letters {self.dead}"
        ok("orders are received")
        ok("an order to retry comes again")
        assert self.dead == [BAD], f"dead letters {self.dead}"
        ok("a dropped order is a dead letter")
