"""The documents of a run directory as typed, frozen values: each has one reader and one writer.

files.py     bytes of a file that may be anything: a folder, a pipe, a link to nowhere, too large
strict.py    JSON from bytes: no NaN, no key twice, no number that does not fit, not too deep
checked.py   JSON to a frozen dataclass, with the key of what is wrong
lines.py     .jsonl: streamed, from its end, or spread over it
events.py    events.jsonl and how a run ended
metrics.py   metrics.jsonl, of a search and of a training
run.py       provenance, lock, job, plan, rendezvous and the other small ones
found.py     an architecture and a policy, as they stand in others
results.py   result.json, comparison.json, evaluation.json

Whatever is wrong is a Damaged of one sentence: the file (and line), what was expected, what to do.
Nothing here needs torch: what is started in a hurry, on a node or a terminal, reads these.
"""

from daas_dist.documents.checked import checked
from daas_dist.documents.files import Damaged

__all__ = ["Damaged", "checked"]
