"""Charter of the part stacks of the room apps.

Owns: SAM and CloudFormation templates as apps: their parameters, functions, conditions and order; the state of every stack
and its resources in the store, their events, exports and change sets; the local code that a template names.
Offers: `Stacks` (plan, apply, roll back, delete, resume after a crash), and CloudFormation's own operations on it in `api`.
Never: honours half of a resource (what is not honoured fails by name, or is a warning that the owner asked for), keeps a
function or an API of its own (the providers ask the rooms that do), talks to AWS.
"""
