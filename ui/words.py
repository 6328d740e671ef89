"""What the browser says of its visitor's languages -> English or Chinese, and every word of the page in both."""

from typing import Any, Literal, TypeAlias

import gradio as gr

Language: TypeAlias = Literal["en", "zh"]

#: By key: English, Chinese. The browser picks, by its own language.
PAGE: dict[str, tuple[str, str]] = {
    "header": (
        """<div style="text-align: center">
<h1>MiniCPM-V 2.6 on OpenVINO</h1>
Ask about pictures and videos. The model runs on this server's own processor: an answer takes its time and may be wrong.<br>
<small>Files you upload are deleted within two hours; what you write is kept in memory only; neither is logged.</small>
</div>""",
        """<div style="text-align: center">
<h1>MiniCPM-V 2.6 on OpenVINO</h1>
就图片和视频提问。模型在本服务器的处理器上运行：回答需要一些时间，也可能有误。<br>
<small>您上传的文件会在两小时内删除；您写的内容只保存在内存中；两者都不会写入日志。</small>
</div>""",
    ),
    "demo_notice": (
        "> **This is the small bundled demo model: it knows only drawn scenes** of coloured shapes, numbers and short words. "
        "To talk about photographs set `MODEL_REPO` or `MODEL_DIR` to a converted MiniCPM-V 2.6.",
        "> **这是随附的小型演示模型：它只认识绘制的场景**，即彩色图形、数字和简短的单词。"
        "若要讨论照片，请将 `MODEL_REPO` 或 `MODEL_DIR` 设为转换后的 MiniCPM-V 2.6。",
    ),
    "chat": ("Conversation", "对话"),
    "message": ("Message", "消息"),
    "ask": ("Ask something…", "请提问…"),
    "begin": ("Add a picture or a video below and ask about it, or take one of these.", "请在下方添加图片或视频并提问，或点击下面的示例。"),
    "settings": ("Settings", "设置"),
    "detail": ("Detail of pictures", "图片细节"),
    "detail_info": ("More detail reads smaller print and takes longer.", "细节越多，能看清的字越小，用时也越长。"),
    "auto": ("Auto", "自动"),
    "fast": ("Fast: overview only", "快速：仅全图"),
    "balanced": ("Balanced: up to 4 slices", "均衡：最多 4 个切片"),
    "full": ("Full: up to 9 slices", "完整：最多 9 个切片"),
    "frames": ("Frames of a video, at most", "视频帧数上限"),
    "system_prompt": ("System prompt", "系统提示"),
    "system_prompt_info": ("What the model should keep to in every answer.", "模型在每次回答中应遵循的要求。"),
    "mode": ("How words are chosen", "生成方式"),
    "sampling": ("Sampling", "采样"),
    "greedy": ("Greedy", "贪心"),
    "beams": ("Beams", "束搜索"),
    "max_new_tokens": ("Length of the answer at most, in tokens", "回答的最大长度（词元）"),
    "temperature": ("Temperature", "温度"),
    "top_p": ("Top-p", "Top-p"),
    "top_k": ("Top-k", "Top-k"),
    "num_beams": ("Beams", "束数"),
    "repetition_penalty": ("Repetition penalty", "重复惩罚"),
    "repetition_penalty_info": (
        "0: the official one (sampling 1.05, greedy 1, beams 1.2).",
        "0 表示官方默认值（采样 1.05，贪心 1，束搜索 1.2）。",
    ),
    "seed": ("Seed", "随机种子"),
    "seed_info": ("0: another answer each time.", "0 表示每次回答不同。"),
    "shots": ("Worked examples (few-shot)", "示范问答（少样本）"),
    "shots_info": (
        "Questions with the answers you would like, shown to the model before every conversation.",
        "给出问题和您期望的回答，每次对话前都会先展示给模型。",
    ),
    "shot_picture": ("Picture of the example", "示范图片"),
    "shot_question": ("Question of the example", "示范问题"),
    "shot_answer": ("Answer of the example", "示范回答"),
    "shot_add": ("Add this example", "添加示范"),
    "shot_list": ("Examples the model is shown first", "先展示给模型的示范"),
}


def word(key: str) -> Any:
    """A word of the page, in the language of whoever looks at it: a component takes it for a string, whatever its types say."""
    if key not in PAGE:
        raise KeyError(key)
    return _I18N(f"{_KEY}{key}")


def translations() -> gr.I18n:
    """What `launch` needs in order to translate."""
    return _I18N


def language(accepted: str) -> Language:
    """Of the two languages the one that an Accept-Language header likes better; English where it likes neither."""
    wishes = []
    for place, wish in enumerate(accepted.split(",")):
        tag, _, quality = wish.strip().partition(";q=")
        try:
            wishes.append((-float(quality or 1), place, tag.partition("-")[0].lower()))
        except ValueError:
            continue
    liked = next((tag for quality, _, tag in sorted(wishes) if tag in ("en", "zh") and quality), "en")
    return "zh" if liked == "zh" else "en"


def read_by(request: gr.Request) -> Language:
    """The language of whoever opened the page."""
    return language(request.headers.get("accept-language", ""))


def shown_to(request: gr.Request) -> Language | None:
    """The language of a visitor whose page calls; None for a client of the API."""
    return read_by(request) if request.headers.get("x-gradio-user") == "app" else None


# Gradio's page also translates a value that is the same as a key, for as long as its component is being made: a choice must not look like one.
_KEY = "word_"
_I18N = gr.I18n(
    en={f"{_KEY}{key}": english for key, (english, _) in PAGE.items()},
    **{tag: {f"{_KEY}{key}": chinese for key, (_, chinese) in PAGE.items()} for tag in ("zh", "zh-CN", "zh-TW", "zh-HK")},
)
