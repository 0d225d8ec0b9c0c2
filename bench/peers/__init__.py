"""The peers: other people's servers with the same trivial handler, started one at a time on a free loopback port.

Owns: `bench/.peers`, where it installs them (git-ignored), and their configuration. Offers: one module per peer with a
`start()` that is ready to be asked when it returns. Never: leaves a process behind; each is ended by the id it started with.
"""
