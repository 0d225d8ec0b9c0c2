"""Everything of the sandbox that runs outside the platform's own process: the supervisor, the zygote, the instance.

Owns: privilege (only the supervisor has any), namespaces, cgroups, seccomp, Landlock, and the loop that calls user code.
Offers: `launch.py NAME`, which starts one of these modules in a bare interpreter.
Never: imports anything but the standard library and its siblings; it must run in an image where nothing else exists.
"""
