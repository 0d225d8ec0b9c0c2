"""Adapters of the objects room's port `backend.Backend`: a folder of this machine, or any object store that obstore speaks to.

Owns: how blobs lie there, and that `keep` means durable. Offers: `disk.open_backend`, `remote.open_backend`.
Never: knows an object, decides what to remove, overwrites a blob.
"""
