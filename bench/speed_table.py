"""What the benchmark of the engine measured of each contender -> a table in Markdown."""

USERS = (1, 2, 4, 8)
LABELS = {
    "load_s": "ready after, s",
    "first_s": "first token about a new picture, s",
    "vision_s": "of which the image encoder, s",
    "follow_up_s": "first token of a follow-up, s",
    "retry_s": "first token of the same turn again, s",
    **{f"prefill_s_{users}": f"long prompt in {users} parts by as many users, s" if users > 1 else "long prompt of one user, s" for users in USERS},
    **{f"tokens_per_s_{users}": f"tokens a second, {users} at once" if users > 1 else "tokens a second, one user" for users in USERS},
    "itl_p50_s": "between tokens of three readers, s: median",
    "itl_p99_s": "99th percentile",
    "itl_p50_beside_a_prompt_s": "median while somebody's long prompt is read",
    "itl_p99_beside_a_prompt_s": "99th percentile while somebody's long prompt is read",
    "itl_p99_ratio": "which is so many times the 99th percentile without it",
    "ttft_ratio": "first token of that prompt, times what it takes alone",
    "peak_rss_mib": "peak memory, MiB",
}


def table(contenders: dict[str, dict[str, float]]) -> list[str]:
    """Markdown, a row for each figure."""
    names = [name for name in LABELS if any(name in figures for figures in contenders.values())]
    rows = [[LABELS[name], *(f"{figures[name]:.4g}" if name in figures else "-" for figures in contenders.values())] for name in names]
    return ["| | " + " | ".join(contenders) + " |", "|---" * (1 + len(contenders)) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
