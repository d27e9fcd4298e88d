#!/usr/bin/env python3
"""Hits of a block cache over a trace, by definition: lists and scans, nothing clever.

usage: sim_reference.py TRACE POLICIES CAPACITIES     (lists with commas)

Prints the JSON that `kvbm sim TRACE --policy POLICIES --capacity CAPACITIES --json` should print.

The model. Requests come in file order, one at a time. A request hits the longest prefix of its blocks
that is present. All its blocks are then held together; each absent one, from the first to the last,
takes a free place or that of a victim. A victim is neither held nor the parent of a block that is
present. If there is none, the rest of the request is not cached. Then the request ends.
"""

import json
import sys

BLOCK_TOKENS = 512
NEVER = float("inf")


class Cache:
    """What all policies share. `present` holds ids; a policy says who goes first."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.present = []
        self.parent = {}

    def children(self, block):
        return [other for other in self.present if self.parent[other] == block]

    def can_go(self, block, held):
        return block not in held and not self.children(block)

    def serve(self, ids):
        """Returns the number of blocks that hit."""
        hits = 0
        while hits < len(ids) and ids[hits] in self.present:
            hits += 1
        held = list(ids)
        self.begin(ids[:hits])
        inserted = []
        for place, block in enumerate(ids):
            if block in self.present:
                continue
            if len(self.present) == self.capacity:
                victim = self.victim(held)
                if victim is None:
                    break
                self.present.remove(victim)
            self.parent[block] = ids[place - 1] if place > 0 else None
            self.present.append(block)
            inserted.append(block)
        self.end([block for block in ids if block in self.present], inserted)
        return hits

    def begin(self, hit):
        pass


class Lru(Cache):
    """The block goes whose last use is the oldest; in one request the deepest is the oldest."""

    def __init__(self, capacity):
        super().__init__(capacity)
        self.uses = []  # oldest first

    def victim(self, held):
        for block in self.uses:
            if self.can_go(block, held):
                self.uses.remove(block)
                return block
        return None

    def end(self, cached, inserted):
        for block in reversed(cached):
            if block in self.uses:
                self.uses.remove(block)
            self.uses.append(block)


class Fifo(Cache):
    """The block goes whose turn in a queue it is.

    Blocks enter the queue when the request ends that inserted them, its deepest first; another use
    does not move them. A block whose turn comes when it cannot go is set aside. When it can go it is
    the very next victim; of several, the one that could last.
    """

    def __init__(self, capacity):
        super().__init__(capacity)
        self.queue = []
        self.aside = []
        self.next = []  # of those set aside, who can go now

    def begin(self, hit):
        for block in hit:
            if block in self.next:
                self.next.remove(block)
                self.aside.append(block)

    def victim(self, held):
        self.set_free(held)
        if self.next:
            return self.next.pop()
        while self.queue:
            block = self.queue.pop(0)
            if self.can_go(block, held):
                return block
            self.aside.append(block)
        return None

    def set_free(self, held):
        for block in list(self.aside):
            if self.can_go(block, held):
                self.aside.remove(block)
                self.next.append(block)

    def end(self, cached, inserted):
        self.queue += reversed(inserted)
        self.set_free([])


class Bound:
    """Keeps the blocks that are needed soonest, knowing all requests.

    After a request the candidates are the blocks that were kept and those of the request; of blocks
    needed by one request, the shallower come first. With `forced`, those of the request that fit
    are kept whatever they are.
    """

    def __init__(self, capacity, prompts, forced):
        self.capacity = capacity
        self.prompts = prompts
        self.forced = forced
        self.kept = []
        self.now = 0

    def need(self, block):
        """When the block is needed next, and how deep it lies there."""
        for number in range(self.now + 1, len(self.prompts)):
            if block in self.prompts[number]:
                return number, self.prompts[number].index(block)
        return NEVER, 0

    def serve(self, ids):
        hits = 0
        while hits < len(ids) and ids[hits] in self.kept:
            hits += 1
        must = ids[:self.capacity] if self.forced else []
        others = {block for block in self.kept + ids if block not in must}
        others = sorted((need, block) for block in others if (need := self.need(block))[0] != NEVER)
        self.kept = must + [block for _, block in others][:self.capacity - len(must)]
        self.now += 1
        return hits


def make(policy, capacity, prompts):
    if policy == "lru":
        return Lru(capacity)
    if policy == "fifo":
        return Fifo(capacity)
    if policy in ("min", "min-forced"):
        return Bound(capacity, prompts, forced=policy == "min-forced")
    sys.exit(f"no reference of {policy}; there are lru, fifo, min, min-forced")


def run(requests, policy, capacity):
    cache = make(policy, capacity, [request["hash_ids"] for request in requests])
    row = {"policy": policy, "capacity": capacity, "block_hits": 0, "token_hits": 0, "accesses": 0,
           "tokens": 0}
    for request in requests:
        hits = cache.serve(request["hash_ids"])
        row["block_hits"] += hits
        row["token_hits"] += min(hits * BLOCK_TOKENS, request["input_length"])
        row["accesses"] += len(request["hash_ids"])
        row["tokens"] += request["input_length"]
    return row


def main():
    path, policies, capacities = sys.argv[1:]
    with open(path, encoding="utf-8") as trace:
        requests = [json.loads(line) for line in trace]
    rows = [run(requests, policy, int(capacity))
            for policy in policies.split(",") for capacity in capacities.split(",")]
    print(json.dumps({"rows": rows}, indent=2))


if __name__ == "__main__":
    main()
