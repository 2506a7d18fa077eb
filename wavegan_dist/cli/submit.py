"""`wavegan submit train` and `wavegan submit evaluate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wavegan_dist.cli.arguments import EXPERIMENT, RUN_DIR, positive, run_dir_of
from wavegan_dist.cli.command import Command, argument
from wavegan_dist.cli.evaluate import METRIC_ARGUMENTS, metric_arguments
from wavegan_dist.errors import UsageError

if TYPE_CHECKING:
    from wavegan_dist.cluster.job import EvaluateJob

RESOURCES = (  # they replace the settings of the profile
    argument("--profile", required=True, metavar="NAME", help="of launchers/slurm, or a .yaml file"),
    argument("--partition", metavar="NAME"),
    argument("--time", metavar="TIME", help="limit of one start, as Slurm writes it: 90 or 12:00:00 or 2-0"),
    argument("--gpus-per-node", type=int, metavar="N"),
)
EVALUATION = (
    *METRIC_ARGUMENTS,
    argument("--best", default="fwd", metavar="METRIC", help="its value nearest to 0 is tagged best (default: fwd)"),
    argument("--in-flight", type=positive, default=2, metavar="N", help="evaluation jobs at a time (default: 2)"),
)
DRY_RUN = argument("--dry-run", action="store_true", help="print the batch script and submit nothing")


def train(options: argparse.Namespace) -> None:
    from wavegan_dist import config
    from wavegan_dist.cluster import submit
    from wavegan_dist.cluster.freeze import config_file
    from wavegan_dist.cluster.job import TrainJob
    from wavegan_dist.cluster.profile import load_profile

    profile = load_profile(options.profile, nodes=options.nodes, **resources(options))
    experiment = config.load(options.config, options.overrides)
    run_dir = run_dir_of(options).absolute()
    evaluation = evaluation_job(options, run_dir, options.evaluate_profile, {}) if options.evaluate_profile else None
    arguments = ["--config", str(config_file(experiment, run_dir / "cluster")), "--run-dir", str(run_dir)]
    job = TrainJob(run_dir=run_dir, profile=profile, arguments=arguments, evaluation=evaluation)
    submit.check_batch(experiment, profile)
    if options.dry_run:
        print(submit.training_script(job), end="")
        return
    job_id = submit.submit_training(experiment, job)
    print(f"job {job_id}: {run_dir}; its log: {run_dir}/cluster/jobs/{job_id}_0_log.out")


def evaluate(options: argparse.Namespace) -> None:
    from wavegan_dist import config
    from wavegan_dist.cluster import submit

    run_dir = options.run_dir.absolute()
    data = config.load(run_dir / "config.yaml").data.index
    names = chosen(run_dir, options.snapshots)
    job = evaluation_job(options, run_dir, options.profile, resources(options))
    if options.dry_run:
        print(submit.evaluation_script(job, names[0], data), end="")
        return
    ids = submit.submit_evaluations(job, names)
    for name, job_id in zip(names, ids, strict=True):
        print(f"job {job_id}: {name}")


def chosen(run_dir: Path, snapshots: str) -> list[str]:
    """The snapshots that `--snapshots` names; UsageError for none and for one that is not there."""
    from wavegan_dist.cluster.command import result_file
    from wavegan_dist.cluster.evaluation_queue import snapshots as all_snapshots

    there = all_snapshots(run_dir)
    if snapshots == "new":
        names = [name for name in there if not result_file(run_dir, name).exists()]
    else:
        names = there if snapshots == "all" else snapshots.split(",")
    if missing := sorted(set(names) - set(there)):
        raise UsageError(f"{run_dir} has no snapshot {missing[0]}; there are {', '.join(there) or 'none'}")
    if not names:
        raise UsageError(f"{run_dir} has no {'snapshot without a result' if there else 'snapshot'}; nothing to submit")
    return names


def resources(options: argparse.Namespace) -> dict[str, object]:
    """Settings of the profile that the command line replaces."""
    return {"partition": options.partition, "time": options.time, "gpus_per_node": options.gpus_per_node}


def evaluation_job(options: argparse.Namespace, run_dir: Path, profile: str, changes: dict[str, object]) -> "EvaluateJob":
    """The job that the options describe."""
    from wavegan_dist.cluster.job import EvaluateJob
    from wavegan_dist.cluster.profile import load_profile

    return EvaluateJob(
        run_dir=run_dir,
        profile=load_profile(profile, **changes),
        arguments=metric_arguments(options),
        best=options.best,
        in_flight=options.in_flight,
    )


SUBMIT_TRAIN = Command(
    name="submit train",
    help="train, through preemption and time limits, to the end",
    description="Submit a training job: `wavegan train` on all nodes, requeued and continued until it is finished.",
    example="wavegan submit train --config configs/cifar10.yaml --profile gpu8 --nodes 2 --time 12:00:00",
    arguments=(
        *EXPERIMENT,
        RUN_DIR,
        *RESOURCES,
        argument("--nodes", type=positive, metavar="N"),
        DRY_RUN,
        argument("--evaluate-profile", metavar="NAME", help="evaluate each snapshot in a job of this profile"),
        *EVALUATION,
    ),
    run=train,
)
SUBMIT_EVALUATE = Command(
    name="submit evaluate",
    help="evaluate snapshots of a run, a job for each",
    description="Submit an array of jobs: `wavegan evaluate` for each snapshot of a run, against the run's own data.",
    example="wavegan submit evaluate --run runs/cifar10 --snapshots new --profile gpu1",
    arguments=(
        argument("--run", type=Path, required=True, metavar="RUN", dest="run_dir", help="run folder"),
        argument(
            "--snapshots", required=True, metavar="all|new|LIST", help="new: without a result; LIST: kimg-000100,kimg-000200"
        ),
        *RESOURCES,
        DRY_RUN,
        *EVALUATION,
    ),
    run=evaluate,
)
