"""The two answers that a keeper gives to whoever asks."""

from outlast.model.ids import Epoch, RequestId
from outlast.model.keeper_effects import Reply
from outlast.model.keeping import KeeperReply


def yes(client: int, request: RequestId, sentence: str = "", *, epoch: Epoch | None = None) -> Reply:
    """Allowed; on which epoch, where it is about one."""
    return Reply(client, KeeperReply(request, True, sentence, epoch))


def no(client: int, request: RequestId, sentence: str) -> Reply:
    """Refused, and why."""
    return Reply(client, KeeperReply(request, False, sentence))
