"""Burns CPU in plain Python and in the interpreter's C code (sorting, JSON) for SECONDS of CPU time."""

import json
import sys
import time


def work(rounds):
    x = 1
    for _ in range(rounds):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return x


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    calls, check = 0, 0
    rows = [{"i": i, "name": f"name {i}"} for i in range(2000)]
    while time.process_time() < seconds:
        check ^= work(20000)
        sorted(json.loads(json.dumps(rows)), key=lambda row: -row["i"])
        calls += 1
    print(json.dumps({"calls": calls, "check": check & 1}))


main()
