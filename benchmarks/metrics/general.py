"""What the model can do beside the edited facts."""

from collections.abc import Sequence

from benchmarks.metrics.base import Metric, Score
from benchmarks.records import Record
from benchmarks.session import Session

TASKS = ("lambada_openai", "hellaswag", "winogrande", "arc_easy")
LIMIT = 100  # questions a task
BATCH = 16
ACCURACY = "acc,none"


class GeneralAbility(Metric):
    """Accuracy on tasks of the LM Evaluation Harness (Gao et al., zenodo 12608602), 100 questions each, zero-shot.

    Kinds are the tasks, and the tasks with ", unedited" for the model before. The model is asked directly: what
    retrieval puts in front of prompts is not there.

    Args:
        tasks: names of tasks that report accuracy.
        limit: how many questions of each are asked.

    Raises:
        ModuleNotFoundError: when it is taken, if `lm_eval` (pip install lm-eval) is missing.
    """

    name, group, default = "general ability", "general ability", False

    def __init__(self, tasks: Sequence[str] = TASKS, limit: int = LIMIT) -> None:
        self.tasks, self.limit = tuple(tasks), limit

    def before(self, session: Session, records: Sequence[Record]) -> dict[str, float]:
        """The unedited model's accuracies, by task."""
        return self._accuracies(session)

    def after(self, session: Session, records: Sequence[Record], before: dict[str, float]) -> list[Score]:
        edited = [Score(self.name, task, "", value) for task, value in self._accuracies(session).items()]
        return edited + [Score(self.name, f"{task}, unedited", "", value) for task, value in before.items()]

    def _accuracies(self, session: Session) -> dict[str, float]:
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=session.model, tokenizer=session.tokenizer, batch_size=BATCH),
            tasks=list(self.tasks),
            limit=self.limit,
            bootstrap_iters=0,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )
        return {task: float(found["results"][task][ACCURACY]) for task in self.tasks}
