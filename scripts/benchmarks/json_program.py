"""A workload: reads a medium JSON document over and over, and prints "rate DOCUMENTS_PER_SECOND" every half second.

Run with PYTHONMALLOC=malloc, so that Python's small objects come from malloc too.
"""

from __future__ import annotations

import json
import time

INTERVAL_S = 0.5
RECORDS = 200


def document() -> str:
    """Return about 30 KB of JSON: records with text, numbers, lists and nested objects."""
    records = [
        {
            "id": number,
            "name": f"customer number {number}",
            "balance": number * 1.25,
            "tags": [f"tag{number}", f"group{number % 7}", None, True],
            "address": {"street": f"{number} Long Street", "city": "Springfield", "code": 10000 + number},
        }
        for number in range(RECORDS)
    ]
    return json.dumps(records)


def main() -> None:
    text = document()
    start, documents = time.monotonic(), 0
    while True:
        json.loads(text)
        documents += 1
        elapsed = time.monotonic() - start
        if elapsed >= INTERVAL_S:
            print(f"rate {documents / elapsed:.3f}", flush=True)
            start, documents = time.monotonic(), 0


if __name__ == "__main__":
    main()
