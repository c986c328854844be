"""Faults over the whole graph, and proof that it healed by itself: `make chaos`.

The stack is started as a user starts it (`acidburn ui`) over a bucket as strict as B2 and a
Postgres, and made to break in every way we know. The only thing that is done for it is what a
service manager does: start it again when it has ended. Afterwards everything is compared with an
undisturbed run.
"""
