"""Untrusted images, parsed in a worker process: what runs there, and what the gateway sees of it.

The gateway's side is `parser` (requests, one after another), `process` (one worker, its deadline
and its end), `blocks` (a cache in front of the disks) and `checks` (nothing comes back unchecked).
The worker's side is `worker`, `image`, `asked` and `sandbox`; `messages` is what they say.
"""
