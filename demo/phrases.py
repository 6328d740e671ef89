"""Every question in its phrasings: PHRASES[what is asked][language]. Names in braces are filled in by `demo.questions` and its like."""

PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "colour": {
        "en": (
            "What colour is the {thing}?",
            "What color is the {thing}?",
            "Which colour does the {thing} have?",
            "Tell me the colour of the {thing}.",
            "Name the colour of the {thing}.",
        ),
        "zh": ("{thing}是什么颜色？", "{thing}的颜色是什么？", "请说出{thing}的颜色。", "图中的{thing}是什么颜色的？", "告诉我{thing}的颜色。"),
    },
    "shape": {
        "en": (
            "What shape is the {thing}?",
            "Which shape does the {thing} have?",
            "Tell me the shape of the {thing}.",
            "Name the shape of the {thing}.",
        ),
        "zh": ("{thing}是什么形状？", "{thing}的形状是什么？", "请说出{thing}的形状。", "告诉我{thing}的形状。"),
    },
    "size": {
        "en": (
            "How big is the {thing}?",
            "What size is the {thing}?",
            "Is the {thing} small or large?",
            "Tell me the size of the {thing}.",
            "Is the {thing} large or small?",
        ),
        "zh": ("{thing}有多大？", "{thing}是大的还是小的？", "{thing}的大小是什么？", "请说出{thing}的大小。", "{thing}是小的还是大的？"),
    },
    "count": {
        "en": (
            "How many {things} are there?",
            "How many {things} are in the picture?",
            "Count the {things}.",
            "How many {things} do you see?",
            "Tell me how many {things} there are.",
        ),
        "zh": ("有几个{things}？", "图中有多少个{things}？", "请数一数{things}。", "你看到几个{things}？", "告诉我有几个{things}。"),
    },
    "where": {
        "en": (
            "Where is the {thing}?",
            "In which part of the picture is the {thing}?",
            "Where do you see the {thing}?",
            "Tell me where the {thing} is.",
        ),
        "zh": ("{thing}在哪里？", "{thing}在图中的什么位置？", "你在哪里看到{thing}？", "告诉我{thing}在哪里。"),
    },
    "relation": {
        "en": (
            "Is the {thing} {relation} the {other}?",
            "Is it true that the {thing} is {relation} the {other}?",
            "Would you say that the {thing} is {relation} the {other}?",
            "The {thing} is {relation} the {other}: is that right?",
        ),
        "zh": (
            "{thing}在{other}的{relation}吗？",
            "{thing}是不是在{other}的{relation}？",
            "{thing}在{other}的{relation}，对吗？",
            "请判断：{thing}在{other}的{relation}。",
        ),
    },
    "related": {
        "en": (
            "What is {relation} the {other}?",
            "Which thing is {relation} the {other}?",
            "Name the thing {relation} the {other}.",
            "Tell me what is {relation} the {other}.",
        ),
        "zh": ("{other}的{relation}是什么？", "什么在{other}的{relation}？", "哪个图形在{other}的{relation}？", "请说出{other}{relation}的图形。"),
    },
    "exist": {
        "en": (
            "Is there {thing}?",
            "Is there {thing} in the picture?",
            "Do you see {thing}?",
            "Can you see {thing}?",
            "Does the picture show {thing}?",
        ),
        "zh": ("有{thing}吗？", "图中有{thing}吗？", "这张图里有{thing}吗？", "图里有没有{thing}？", "图里是否有{thing}？"),
    },
    "read_number": {
        "en": ("What number is written?", "What number is in the picture?", "Read the number.", "Which number do you see?", "Tell me the number."),
        "zh": ("图中的数字是什么？", "写的是什么数字？", "请读出数字。", "你看到什么数字？", "告诉我图中的数字。"),
    },
    "read_word": {
        "en": ("What word is written?", "What word is in the picture?", "Read the word.", "Which word do you see?", "Tell me the word."),
        "zh": ("图中的单词是什么？", "写的是什么单词？", "请读出单词。", "你看到什么单词？", "告诉我图中的单词。"),
    },
    "small_print": {
        "en": ("What does the small print say?", "Read the small print.", "What is written in small type?", "Tell me what the small print says."),
        "zh": ("小字写的是什么？", "请读出小字。", "图中的小字是什么？", "告诉我小字写了什么。"),
    },
    "describe": {
        "en": (
            "Describe the picture.",
            "What is in the picture?",
            "What do you see?",
            "List the things from left to right.",
            "What does the picture show?",
        ),
        "zh": ("请描述这张图。", "图中有什么？", "你看到了什么？", "请从左到右列出图形。", "这张图画了什么？"),
    },
    "which_has": {
        "en": ("Which image has {thing}?", "Which image shows {thing}?", "In which image is there {thing}?", "In which image do you see {thing}?"),
        "zh": ("哪张图有{thing}？", "哪张图里有{thing}？", "在哪张图里能看到{thing}？", "{thing}在哪张图里？"),
    },
    "count_in": {
        "en": (
            "How many {things} are in image {number}?",
            "In image {number}, how many {things} are there?",
            "Count the {things} in image {number}.",
            "How many {things} does image {number} show?",
        ),
        "zh": (
            "图{number}里有几个{things}？",
            "图{number}中有多少个{things}？",
            "请数一数图{number}里的{things}。",
            "在图{number}里你看到几个{things}？",
        ),
    },
    "colour_in": {
        "en": (
            "What colour is the {thing} in image {number}?",
            "In image {number}, what colour is the {thing}?",
            "Tell me the colour of the {thing} in image {number}.",
            "Which colour does the {thing} in image {number} have?",
        ),
        "zh": (
            "图{number}里的{thing}是什么颜色？",
            "图{number}中{thing}的颜色是什么？",
            "请说出图{number}里{thing}的颜色。",
            "告诉我图{number}里{thing}的颜色。",
        ),
    },
    "read_in": {
        "en": (
            "What number is in image {number}?",
            "Read the number in image {number}.",
            "In image {number}, what number is written?",
            "Which number does image {number} show?",
        ),
        "zh": ("图{number}里的数字是什么？", "请读出图{number}里的数字。", "图{number}里写的是什么数字？", "告诉我图{number}里的数字。"),
    },
    "most": {
        "en": (
            "Which image has the most things?",
            "Which image shows the most things?",
            "In which image are the most things?",
            "Where are the most things: in which image?",
        ),
        "zh": ("哪张图的图形最多？", "哪张图里的图形最多？", "图形最多的是哪张图？", "哪张图里图形的数量最多？"),
    },
    "fewest": {
        "en": (
            "Which image has the fewest things?",
            "Which image shows the fewest things?",
            "In which image are the fewest things?",
            "Where are the fewest things: in which image?",
        ),
        "zh": ("哪张图的图形最少？", "哪张图里的图形最少？", "图形最少的是哪张图？", "哪张图里图形的数量最少？"),
    },
    "more": {
        "en": (
            "Which image has more things?",
            "Which of the two images shows more things?",
            "In which image are there more things?",
            "Which image has the larger number of things?",
        ),
        "zh": ("哪张图的图形更多？", "两张图中哪张图的图形更多？", "哪张图里的图形比较多？", "图形更多的是哪张图？"),
    },
    "fewer": {
        "en": (
            "Which image has fewer things?",
            "Which of the two images shows fewer things?",
            "In which image are there fewer things?",
            "Which image has the smaller number of things?",
        ),
        "zh": ("哪张图的图形更少？", "两张图中哪张图的图形更少？", "哪张图里的图形比较少？", "图形更少的是哪张图？"),
    },
    "differs": {
        "en": (
            "One thing differs between the two images: its colour, shape, size or place?",
            "What is different about one thing: the colour, the shape, the size or the place?",
            "What changed from image 1 to image 2: colour, shape, size or place?",
            "What differs between image 1 and image 2: a colour, a shape, a size or a place?",
        ),
        "zh": (
            "两张图有什么不同：颜色、形状、大小还是位置？",
            "两张图中有一个图形不同：是颜色、形状、大小还是位置？",
            "从图1到图2变了什么：颜色、形状、大小还是位置？",
            "图1和图2哪里不同：颜色、形状、大小还是位置？",
        ),
    },
    "missing": {
        "en": (
            "What is in image {number} but not in image {other}?",
            "Which thing of image {number} is missing in image {other}?",
            "What does image {number} show that image {other} does not?",
            "Name the thing that only image {number} has.",
        ),
        "zh": (
            "图{number}里有而图{other}里没有的是什么？",
            "图{number}里的哪个图形在图{other}里没有？",
            "什么只在图{number}里有？",
            "请说出只有图{number}才有的图形。",
        ),
    },
    "and_other": {
        "en": ("And the {thing}?", "What about the {thing}?", "And what about the {thing}?", "Now the {thing}?"),
        "zh": ("{thing}呢？", "那{thing}呢？", "那么{thing}呢？", "还有{thing}呢？"),
    },
    "and_the_other_one": {
        "en": ("And the other one?", "What about the other one?", "And what about the other one?", "And the other thing?"),
        "zh": ("另一个呢？", "那另一个呢？", "那么另一个呢？", "另一个图形呢？"),
    },
    "and_colour": {
        "en": ("And what colour is it?", "What colour is it?", "And its colour?", "Which colour does it have?"),
        "zh": ("它是什么颜色？", "那它是什么颜色？", "它的颜色呢？", "它的颜色是什么？"),
    },
    "and_shape": {
        "en": ("And what shape is it?", "What shape is it?", "And its shape?", "Which shape does it have?"),
        "zh": ("它是什么形状？", "那它是什么形状？", "它的形状呢？", "它的形状是什么？"),
    },
    "and_size": {
        "en": ("And how big is it?", "How big is it?", "And its size?", "Is it small or large?"),
        "zh": ("它有多大？", "那它有多大？", "它的大小呢？", "它是大的还是小的？"),
    },
    "and_where": {
        "en": ("And where is it?", "Where is it?", "And in which part of the picture is it?", "And its place?"),
        "zh": ("它在哪里？", "那它在哪里？", "它的位置呢？", "它在图中的什么位置？"),
    },
    "and_count": {
        "en": ("And how many {things}?", "How many {things}?", "And the {things}?", "What about the {things}?"),
        "zh": ("{things}呢？", "那{things}呢？", "{things}有几个？", "那{things}有几个？"),
    },
    "and_exist": {
        "en": ("And {thing}?", "What about {thing}?", "And is there {thing}?", "Is there {thing} too?"),
        "zh": ("{thing}呢？", "那{thing}呢？", "也有{thing}吗？", "那有{thing}吗？"),
    },
    "and_image": {
        "en": ("And in image {number}?", "And image {number}?", "What about image {number}?", "And how is it in image {number}?"),
        "zh": ("图{number}呢？", "那图{number}呢？", "那么图{number}里呢？", "图{number}里呢？"),
    },
    "moves": {
        "en": (
            "Which way does the {thing} move?",
            "In which direction does the {thing} move?",
            "Where does the {thing} go?",
            "Tell me which way the {thing} moves.",
        ),
        "zh": ("{thing}向哪边移动？", "{thing}往哪个方向移动？", "{thing}去了哪边？", "告诉我{thing}移动的方向。"),
    },
    "what_moves": {
        "en": ("What moves?", "Which thing moves?", "Name the thing that moves.", "What is moving in the video?"),
        "zh": ("什么在移动？", "哪个图形在移动？", "请说出移动的图形。", "视频里什么在动？"),
    },
    "appears": {
        "en": ("What appears?", "Which thing appears?", "What appears in the video?", "Name the thing that appears."),
        "zh": ("什么出现了？", "哪个图形出现了？", "视频里出现了什么？", "请说出出现的图形。"),
    },
    "vanishes": {
        "en": ("What vanishes?", "Which thing disappears?", "What disappears in the video?", "Name the thing that vanishes."),
        "zh": ("什么消失了？", "哪个图形消失了？", "视频里什么不见了？", "请说出消失的图形。"),
    },
    "order": {
        "en": (
            "In which order do they appear?",
            "In which order do the things appear?",
            "List the things in the order they appear.",
            "What appears, in order?",
        ),
        "zh": ("它们按什么顺序出现？", "图形按什么顺序出现？", "请按出现的顺序列出图形。", "依次出现了什么？"),
    },
    "first": {
        "en": ("What appears first?", "Which thing appears first?", "What is the first thing to appear?", "Name the thing that appears first."),
        "zh": ("什么最先出现？", "哪个图形最先出现？", "最先出现的是什么？", "请说出最先出现的图形。"),
    },
    "last": {
        "en": ("What appears last?", "Which thing appears last?", "What is the last thing to appear?", "Name the thing that appears last."),
        "zh": ("什么最后出现？", "哪个图形最后出现？", "最后出现的是什么？", "请说出最后出现的图形。"),
    },
    "blinks": {
        "en": (
            "How many times does the {thing} blink?",
            "How often does the {thing} blink?",
            "Count how many times the {thing} blinks.",
            "Tell me how many times the {thing} blinks.",
        ),
        "zh": ("{thing}闪了几次？", "{thing}闪烁了几次？", "请数一数{thing}闪了几次。", "告诉我{thing}闪了多少次。"),
    },
}
