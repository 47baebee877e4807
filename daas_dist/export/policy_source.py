"""`--to torchvision`: the policy as one source file, which needs torch and torchvision alone."""

from daas_dist.export.literals import assignment, number, row
from daas_dist.export.standalone import Copy
from daas_dist.spaces import operations as augment
from daas_dist.spaces.operations import describe
from daas_dist.spaces.policy import Policy, all_policies

FILE = "policy.py"

HEAD = '''"""An augmentation policy that was searched by DAAS, as a torchvision v2 transform.

Needs torch >= 2.11 and torchvision >= 0.26, and nothing else. In a training's pipeline it stands
after crop and flip, before the image is made float:

    transform = v2.Compose([
        v2.RandomCrop(32, padding=4),
        v2.RandomHorizontalFlip(),
        policy(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
    ])

policy(generator) draws from a generator of yours, as daas_dist's own transform would with the same
one, bit for bit. First the numbers that were found, then the code, which is daas_dist's.
"""
'''

TAIL = '''

def policy(generator: torch.Generator | None = None) -> PolicyTransform:
    """The policy; its draws come from `generator`, or from torch's own."""
    return PolicyTransform(POLICY, generator)
'''

COPY = Copy(
    entries=(("daas_dist.results.transform", "PolicyTransform"),),
    without=(
        "Policy.weights",
        "Policy.ranking",
        "Policy.to_document",
        "Policy.from_document",
        "Policy.__eq__",
    ),
    reserved=("ORIGIN", "SLOTS", "POLICIES", "POLICY", "policy"),
)


def source(policy: Policy, origin: dict[str, object]) -> str:
    numbers, construct = _per_slot(policy) if policy.parameters == "per_slot" else _joint(policy)
    imports, _, code = COPY.source().partition("\n\n\n")
    parts = [HEAD, imports, "", assignment("ORIGIN", origin), "", numbers, "", "", code]
    return "\n".join(parts) + "\n" + construct + TAIL


def _per_slot(policy: Policy) -> tuple[str, str]:
    """(numbers, how they become POLICY): (K, O) of each."""
    lines = ["# (operation, how often it is drawn, how often it is then applied, magnitude 0 to 9)"]
    lines += ["SLOTS = ("]
    for slot in range(policy.slots):
        lines += ["    (  # " + f"slot {slot + 1}"]
        for o, name in enumerate(augment.NAMES):
            magnitude = int(policy.magnitude[slot, o])
            shares = (policy.probability_KO[slot, o], policy.application[slot, o])
            fields = [repr(name), *(number(float(share)) for share in shares), str(magnitude)]
            does = describe(name, magnitude, policy.ranges)
            lines += [f"        {row(fields)},  # {does}"]
        lines += ["    ),"]
    lines += [")"]
    return "\n".join(lines), _construct(
        policy,
        "[[share for _, share, _, _ in slot] for slot in SLOTS]",
        "[[applied for _, _, applied, _ in slot] for slot in SLOTS]",
        "[[magnitude for _, _, _, magnitude in slot] for slot in SLOTS]",
    )


def _joint(policy: Policy) -> tuple[str, str]:
    """Write the stages as _per_slot does, where each ordered sequence of operations has its own
    p and magnitudes."""
    lines = ["# (operation, how often it is drawn) in each slot", "SLOTS = ("]
    for slot_O in policy.probability_KO.tolist():
        pairs = zip(augment.NAMES, slot_O, strict=True)
        entries = ", ".join(row([repr(name), number(share)]) for name, share in pairs)
        lines += [f"    ({entries}),"]
    lines += [")", "# (operation, how often it is then applied, magnitude 0 to 9) of each slot"]
    lines += ["POLICIES = ("]
    for r, sequence in enumerate(all_policies(policy.slots).tolist()):
        steps, words = [], []
        for k, o in enumerate(sequence):
            name, magnitude = augment.NAMES[o], int(policy.magnitude[r, k])
            applied = number(float(policy.application[r, k]))
            steps += [row([repr(name), applied, str(magnitude)])]
            words += [describe(name, magnitude, policy.ranges)]
        lines += [f"    {row(steps)},  # {'; '.join(words)}"]
    lines += [")"]
    return "\n".join(lines), _construct(
        policy,
        "[[share for _, share in slot] for slot in SLOTS]",
        "[[applied for _, applied, _ in steps] for steps in POLICIES]",
        "[[magnitude for _, _, magnitude in steps] for steps in POLICIES]",
    )


def _construct(policy: Policy, probability: str, application: str, magnitude: str) -> str:
    return f"""
POLICY = Policy(
    probability_KO=torch.tensor({probability}),
    application=torch.tensor({application}),
    magnitude=torch.tensor({magnitude}),
    parameters={policy.parameters!r},
    ranges={policy.ranges!r},
)
"""
