"""Room for as many sockets as a bench opens."""

import resource

from paddler.errors import StartError

SPARE = 64  # beside the sockets: the loop's own, logs, libraries


def allow_many_sockets(count: int) -> None:
    """Raise this process's limit of descriptors; :class:`StartError` where it may not."""
    wanted = count + SPARE
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if most != resource.RLIM_INFINITY and most < wanted:
            raise StartError(
                f"{count} sockets need {wanted} descriptors, this process may have {most}: "
                "raise it with `ulimit -n`"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
