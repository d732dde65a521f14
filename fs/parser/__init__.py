"""Untrusted images, parsed in a worker process: what runs there, and what the gateway sees of it.

The gateway's side is `parser` (requests, one after another), `waiting` (whose is next), `process`
(one worker, its deadline and its end), `places` (how many of them live), `supplies` and `blocks`
(what they are given of the disks, with a cache) and `checks` (nothing comes back unchecked).
The worker's side is `worker`, `image`, `asked` and `sandbox`; `messages` is what they say.
"""
