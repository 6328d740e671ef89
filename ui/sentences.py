"""How far the work is, what it costs and took, or what went wrong -> one plain line, in the language of the person who waits; errors in English."""

import logging
import traceback

from pipeline import Answer, Notice, PipelineError, Status
from ui.cost import Cost
from ui.model import Degraded, Ready, Starting, State
from ui.seen import Measured
from ui.words import Language

logger = logging.getLogger("app")

FAULT = "Something went wrong here, through no fault of yours. Please try again."
#: English, Chinese.
_LINES = {
    "stopped": ("You stopped this answer here.", "您在此处停止了回答。"),
    "untaken": ("This message was not taken: “Retry” sends it again.", "这条消息未被接收：点击“重试”可重新发送。"),
    "broken": ("The connection broke off here: “Retry” asks again.", "连接在此处中断：点击“重试”可重新提问。"),
    "expired": ("The answer ends here: it took longer than one answer may.", "回答到此为止：已超过单次回答允许的时间。"),
    "incomplete": ("An example takes a question or a picture, and an answer.", "一个示范需要一个问题或一张图片，以及一个回答。"),
    "seen": ("what the model saw", "模型看到的内容"),
}


def line(name: str, language: Language) -> str:
    """One of the lines that are always the same."""
    english, chinese = _LINES[name]
    return chinese if language == "zh" else english


def progress(status: Status | Starting, language: Language = "en") -> str:
    """How far the work before the next words is."""
    chinese = language == "zh"
    match status:
        case Starting("downloading", done, total):
            unit, size = ("GB", 1e9) if total >= 1e9 else ("MB", 1e6)
            far = f"{done / size:.1f} / {total / size:.1f} {unit}" if chinese else f"{done / size:.1f} of {total / size:.1f} {unit}"
            return f"正在启动：下载 {far}" if chinese else f"Starting: downloading {far}"
        case Starting("checking"):
            return "正在启动：检查文件" if chinese else "Starting: checking files"
        case Starting():
            return "正在启动：加载模型" if chinese else "Starting: loading the model"
        case Status("queued", _, ahead, seconds):
            place = f"排队中：前面还有 {ahead} 个请求" if chinese else f"Waiting: {_count(ahead, 'request')} ahead"
            about = "" if seconds is None else f"约 {duration(seconds, language)}" if chinese else f"about {duration(seconds)}"
            return ("，" if chinese else ", ").join([place, about]) if about else place
        case Status("vision", done, total):
            return f"正在编码图片：{total} 个切片已完成 {done} 个" if chinese else f"Encoding pictures: {done} of {total} slices done"
        case Status(_, done, total):
            return f"{'正在读取提示：' if chinese else 'Reading the prompt: '}{100 * done // total} %"


def state_line(state: State, language: Language = "en") -> str:
    """Whether the model is there, how far it is, or why it is not."""
    match state:
        case Starting():
            return progress(state, language)
        case Degraded(reason):
            return reason
        case Ready():
            return "就绪" if language == "zh" else "Ready"


def cost(cost: Cost, language: Language) -> str:
    """What a message will take: "2 pictures, 14 slices, 1 video of 12 frames: 1,420 tokens, first words in about 40 s"."""
    # A frame that is not cut is one slice, and so is every other: the number would say nothing more.
    frame_slices = cost.frame_slices if cost.frame_slices > sum(cost.videos) else 0
    if language == "zh":
        shown = [f"{cost.pictures} 张图片"] * bool(cost.pictures) + [f"{cost.picture_slices} 个切片"] * bool(cost.picture_slices)
        shown += [f"{frames} 帧的视频" for frames in cost.videos] + [f"{frame_slices} 个切片"] * bool(frame_slices)
        read = f"{cost.tokens:,} 个词元" + ("" if cost.seconds is None else f"，约 {duration(cost.seconds, language)}后出现第一个词")
        return f"{'，'.join(shown)}：{read}" if shown else read
    shown = [_count(cost.pictures, "picture")] * bool(cost.pictures) + [_count(cost.picture_slices, "slice")] * bool(cost.picture_slices)
    shown += [f"1 video of {_count(frames, 'frame')}" for frames in cost.videos] + [_count(frame_slices, "slice")] * bool(frame_slices)
    read = _count(cost.tokens, "token") + ("" if cost.seconds is None else f", first words in about {duration(cost.seconds)}")
    return f"{', '.join(shown)}: {read}" if shown else read


def measured(figures: Measured, language: Language) -> str:
    """What an answer took: "14 slices in 38 s, first word after 52 s, 2.3 words a second, 96 % of the prompt from cache"."""
    chinese, said = language == "zh", []
    if figures.slices:
        took = duration(figures.vision_s, language)
        said.append(f"编码 {figures.slices} 个切片用时 {took}" if chinese else f"{_count(figures.slices, 'slice')} in {took}")
    if figures.ttft_s is not None:
        took = duration(figures.ttft_s, language)
        said.append(f"{took}后出现第一个词" if chinese else f"first word after {took}")
    if figures.words_a_second is not None:
        pace = f"{figures.words_a_second:.1f}"
        said.append(f"每秒 {pace} 个词" if chinese else f"{pace} words a second")
    if (share := round(100 * figures.cached)) > 0:
        said.append(f"{share} % 的提示来自缓存" if chinese else f"{share} % of the prompt from cache")
    return ("，" if chinese else ", ").join(said)


def full(waiting: int, limit: int, language: Language) -> str:
    """That a request was not taken, because others wait."""
    if language == "zh":
        return f"队列已满（{waiting} 个请求在等待，上限为 {limit}）：请稍后再试。"
    return f"The queue is full ({waiting} waiting, the limit is {limit}): please try again in a while."


def notice(told: Notice, language: Language = "en") -> str:
    """What of a picture is not shown to the model."""
    if language == "zh":
        return f"图片 {told.picture.removeprefix('Picture ')} 有多帧或多页；只向模型展示第一帧或第一页。"
    return told.text


def unfinished(answer: Answer, language: Language = "en") -> str | None:
    """Why an answer ends before its end; None where it does not."""
    match answer.finish_reason:
        case "length":
            return cut(len(answer.token_ids), language)
        case "cancelled":
            return line("expired", language)
    return None


def cut(tokens: int, language: Language) -> str:
    """That an answer ended because it was long enough, and what to do."""
    if language == "zh":
        return f"回答在 {tokens:,} 个词元处被截断，已达设定的最大长度：可发送“继续”，或在设置中允许更长的回答。"
    return f"The answer was cut after {_count(tokens, 'token')}, the length allowed: say “go on”, or allow longer answers in the settings."


def duration(seconds: float, language: Language = "en") -> str:
    """Rounded as much as it is worth: 0.4 s, 12 s, 2 min."""
    second, minute = ("秒", "分钟") if language == "zh" else ("s", "min")
    if seconds < 9.95:
        return f"{seconds:.1f} {second}"
    return f"{seconds:.0f} {second}" if seconds < 99.5 else f"{seconds / 60:.0f} {minute}"


def sentence(error: Exception) -> str:
    """What the person is told; a fault of ours is logged by where it happened, without its message, which may quote what people wrote."""
    if isinstance(error, PipelineError):
        return str(error)
    logger.error("%s while answering\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return FAULT


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
