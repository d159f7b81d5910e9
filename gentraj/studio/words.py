"""What the panel and the pages say of a session, in words."""

from __future__ import annotations

from .planning import Answer
from .session import Session


def status(session: Session) -> str:
    """The runs with their latencies, and what is known of the newest plans, as Markdown."""
    rows = [f"| {'**' if each is session.loaded else ''}{each.name}{'**' if each is session.loaded else ''} "
            f"| {each.summary} | {session.latency(each)} |" for each in session.runs]
    lines = ["| run | what it is | a plan takes |", "|---|---|---|", *rows, ""]
    answer = session.answers.get(0)
    if session.problem:
        lines.append(f"**{session.problem}**")
    elif answer is not None:
        rate = round(session.rate)
        lines.append(described(answer) + (f" {rate} plans a second." if rate > 1 else ""))
    return "\n".join(lines)


def described(answer: Answer) -> str:
    """The newest plans in words."""
    if answer.loaded.kind == "policy":
        return f"The policy plans nothing; these are its next {answer.x_NHD.shape[1] - 1} steps."
    trusted, count = int((answer.ratio_N <= 1).sum()), len(answer.ratio_N)
    words = [f"{trusted} of {count} plans trusted (ratio of the chosen one: {answer.ratio_N[answer.chosen]:.2f})."
             if answer.ratio_N.any() else f"{count} plans, of a run without a measure of trust."]
    if answer.value_N is not None:
        words.append(f"Its value: {answer.value_N[answer.chosen]:.2f}.")
    if answer.certificate is not None:
        worst = float(answer.certificate.worst[answer.chosen])
        words.append("Certificate: it keeps out of all obstacles and walls at its timesteps." if worst <= 1e-6 else
                     f"Certificate: **violated by {worst:.3g}**.")
    if crossing := int(answer.crossing.sum()):
        words.append(f"Parts of it between timesteps that cross a wall or an obstacle: **{crossing} of "
                     f"{len(answer.crossing)}** (red).")
    return " ".join(words)


def loop_status(session: Session) -> str:
    """The closed loop in words."""
    if (drive := session.drive) is None:
        return "The agent is at the start."
    state = "reached the goal" if drive.success else "the episode is over" if drive.done else "on its way"
    return f"Step {len(drive.path) - 1}, return {drive.total:.1f}: {state}."
