"""A look of a run: told, its evidence kept, and journalled whole: whoever carries the run on has seen the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.core.handler import Diagnosis
from bot.core.plan import finding_from_json, finding_to_json
from bot.core.ports import Tx
from bot.core.question import Answer, Question, answer_to_json
from bot.core.target import Target
from bot.engine.journal import Journal
from bot.engine.rounds import Diagnoser, Found, Report, shown_answer

EVIDENCE_CAP = 20_000  # characters of one answer that are kept
CAPS = {"title": 500, "evidence": 4000, "person": 1000, "link": 500}  # characters of a finding's words
MOST_UNKNOWN = 500  # characters of a sentence that says what could not be told
Json = dict[str, Any]


@dataclass(frozen=True)
class Looking:
    """What one run sees of its machines."""

    journal: Journal
    diagnoser: Diagnoser

    def whole(self, no: int, diagnoses: Sequence[Diagnosis], machines: Sequence[Target]) -> Report:
        """One look at everything, journalled whole; a run that died while looking looks again."""
        answers: list[tuple[Target, Question, Answer]] = []
        sampled: set[Question] = set()

        def do() -> Json:
            report = self.seen(diagnoses, machines)
            answers.extend(report.answers)
            sampled.update(report.sampled)
            return self._kept(_report_to_json(report))

        def keep(tx: Tx, stored: Json) -> None:
            self._tell(tx, no, _report_from_json(stored, self.diagnoser), diagnoses, stored.get("unsure", ()))
            self._keep_samples(tx, [each for each in answers if each[1] in sampled])
            self._keep_evidence(tx, no, stored, answers)

        return _report_from_json(self.journal.once(f"look.{no}", do, keep), self.diagnoser)

    def _kept(self, report: Json) -> Json:
        """What was found as it is journalled: its words come from machines; its fixes are what will run."""
        show = self.journal.redactor.show
        findings = [
            {**each, **{key: show(each[key])[:most] for key, most in CAPS.items()}} for each in report["findings"]
        ]
        return {**report, "findings": findings, "unknown": [show(each)[:MOST_UNKNOWN] for each in report["unknown"]]}

    def seen(self, diagnoses: Sequence[Diagnosis], machines: Sequence[Target]) -> Report:
        report = self.diagnoser.look(diagnoses, machines, self.journal.stop)
        self.journal.heed_stop()
        return report

    def _tell(self, tx: Tx, no: int, report: Report, diagnoses: Sequence[Diagnosis], unsure: Iterable[str]) -> None:
        """What was checked is what nothing was found by: a question that was answered with `no`, or not at all, is
        not among it.
        """
        spoke = {found.by for found in report.findings} | set(unsure)
        quiet = [each for each in diagnoses if each.name in report.checked and each.name not in spoke]
        checked = [each.says or each.name for each in quiet]
        self.journal.tell(tx, "look", no=no, asked=report.asked, checked=checked, unknown=report.unknown)
        for found in report.causes_first():
            finding = found.finding
            self.journal.tell(
                tx,
                "finding",
                look=no,
                target=finding.target.name,
                cause=finding.cause,
                severity=finding.severity.name,
                title=finding.title,
                evidence=finding.evidence,
                fixes=[fix.title for fix in finding.fixes],
                under=found.under,
                person=finding.person,
                link=finding.link,
            )

    def _keep_samples(self, tx: Tx, answers: Sequence[tuple[Target, Question, Answer]]) -> None:
        for target, question, answer in answers:
            self.journal.store.sample(tx, target.key, str(question), answer_to_json(answer))

    def _keep_evidence(self, tx: Tx, no: int, stored: Json, answers: Sequence[tuple[Target, Question, Answer]]) -> None:
        show, store, run = self.journal.redactor.show, self.journal.store, self.journal.run
        store.keep_findings(tx, run.id, no, [self.journal.shown(each) for each in stored["findings"]])
        texts = []
        for target, question, answer in answers:
            text = show(shown_answer(question, answer))
            capped = show(f"{text[:EVIDENCE_CAP]}\n(cut: {len(text)} characters)") if len(text) > EVIDENCE_CAP else text
            store.keep_evidence(tx, run.id, target.name, str(show(question)), capped)
            texts.append(f"# {target}\n{capped}")
        if stored["findings"] and texts:
            name = f"evidence-run-{run.id}-look-{no}.txt"
            summary = f"What the machines said in look {no}: {len(texts)} answers"
            self.journal.tell(tx, "note", text=summary, file=name, content="\n\n".join(texts))


def unseen(report: Report) -> list[str]:
    """What kept a look from seeing: unreachable machines, and answers that could not be read."""
    return [*(each.finding.title for each in report.findings if not each.by), *report.unknown]


def _report_to_json(report: Report) -> Json:
    findings = [{**finding_to_json(each.finding), "by": each.by, "under": each.under} for each in report.findings]
    return {
        "findings": findings,
        "asked": list(report.asked),
        "checked": list(report.checked),
        "unknown": list(report.unknown),
        "unsure": sorted({name for name, _ in report.unsure}),
        "again_in": None if report.again_in is None else report.again_in.total_seconds(),
    }


def _report_from_json(stored: Json, diagnoser: Diagnoser) -> Report:
    findings = tuple(
        Found(finding_from_json(each, diagnoser.site), each["by"], each["under"]) for each in stored["findings"]
    )
    again_in = None if stored.get("again_in") is None else timedelta(seconds=stored["again_in"])
    words = (tuple(stored["asked"]), tuple(stored["checked"]), tuple(stored["unknown"]))
    return Report(findings, *words, again_in=again_in)
