"""OneFlow's job-function API of before 0.8, brought back on OneFlow 0.9.

`install` is the only entry. It is active only where it was called: in a worker that
``flowlaunch run --legacy-api`` started. Nothing else imports this room.
"""

from launcher.legacy.hook import install

__all__ = ["install"]
