"""What user code imports and what runs inside a sandbox.

Owns: the decorators that declare an app, the binding of HTTP events to typed parameters and of return values to answers, the
adapters for ASGI and WSGI apps, the clients of the sandbox's private loopback, and the resource graph that deploy reads.

Offers: the names of `martlet.__all__`; to the runtime `__martlet_entry__` and `__martlet_stream__` (see `function` and
`answer`); to deploy `martlet.sdk.graph.emit`.

Never: imports another room of Martlet or anything outside the standard library (pydantic and msgspec are used where the user's
own types have loaded them), starts a thread, or opens a socket before user code asks for something behind it. It is on the
path of every cold start: importing it loads no other module at all, and each part is loaded by its first use.
"""
