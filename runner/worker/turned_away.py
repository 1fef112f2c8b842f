"""Who may join a queue and who is turned away: counts against limits. Pure."""

from runner.errors import DeadlineExceeded, Overloaded
from runner.wire.messages import SchedulerLimits


def check_queue(limits: SchedulerLimits, level: int, *, ahead: int, waiting: int) -> None:
    """Raises Overloaded where the queue of a priority level is full.

    `ahead`: sequences that no lane is free for; below zero, so many lanes are free. `waiting`: those of this level
    that are in no lane, some of which may find a free one.
    """
    most = limits.queue(level).max_queue_size
    counted = min(ahead, waiting) if ahead > 0 else ahead
    if counted >= most:
        of_level = f" of priority level {level}" if len(limits.queues) > 1 else ""
        raise Overloaded(
            f"the model's queue{of_level} is full ({counted} sequences wait, scheduler.max_queue_size is {most}); "
            "try again later"
        )


def check_embeds(limits: SchedulerLimits, waiting: int) -> None:
    """Raises Overloaded where too many calls for vectors wait already."""
    most = limits.queue(0).max_queue_size
    if waiting >= most:
        raise Overloaded(
            f"the model's queue is full ({waiting} calls for embeddings wait, scheduler.max_queue_size is {most}); "
            "try again later"
        )


def waited_too_long() -> DeadlineExceeded:
    """What becomes of who waited longer than its queue's limit."""
    return DeadlineExceeded("the request waited longer in the queue than its queue_timeout_s")
