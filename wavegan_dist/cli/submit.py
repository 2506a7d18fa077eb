"""`wavegan submit train` and `wavegan submit evaluate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavegan_dist.cli.evaluate import add_measures, measures
from wavegan_dist.cli.parsing import Parser, positive
from wavegan_dist.errors import UsageError

if TYPE_CHECKING:
    from wavegan_dist.cluster.job import EvaluateJob


def add(commands: Any) -> None:
    """Add the commands to the command line."""
    submit = commands.add_parser("submit", help="train or evaluate as a job on Slurm")
    kinds = submit.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _add_train(kinds)
    _add_evaluate(kinds)


def _add_train(kinds: Any) -> None:
    command = kinds.add_parser(
        "train",
        help="train, through preemption and time limits, to the end",
        description="Submit a training job: `wavegan train` on all nodes, requeued and continued until it is finished.",
        epilog="example: wavegan submit train --config configs/cifar10.yaml --profile gpu8 --nodes 2 --time 12:00:00",
    )
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="experiment, YAML")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    command.add_argument("--run-dir", type=Path, metavar="DIR", help="run folder (default: runs/NAME_OF_CONFIG)")
    add_resources(command)
    command.add_argument("--nodes", type=positive, metavar="N")
    _add_dry_run(command)
    command.add_argument("--evaluate-profile", metavar="NAME", help="evaluate each snapshot in a job of this profile")
    add_evaluation(command)
    command.set_defaults(run=train)


def _add_evaluate(kinds: Any) -> None:
    command = kinds.add_parser(
        "evaluate",
        help="evaluate snapshots of a run, a job for each",
        description="Submit an array of jobs: `wavegan evaluate` for each snapshot of a run, against the run's own data.",
        epilog="example: wavegan submit evaluate --run runs/cifar10 --snapshots new --profile gpu1",
    )
    command.add_argument("--run", type=Path, required=True, metavar="RUN", dest="run_dir", help="run folder")
    command.add_argument(
        "--snapshots", required=True, metavar="all|new|LIST", help="new: without a result; LIST: kimg-000100,kimg-000200"
    )
    add_resources(command)
    _add_dry_run(command)
    add_evaluation(command)
    command.set_defaults(run=evaluate)


def _add_dry_run(command: Any) -> None:
    command.add_argument("--dry-run", action="store_true", help="print the batch script and submit nothing")


def add_resources(command: Any) -> None:
    """What replaces the profile's own settings."""
    command.add_argument("--profile", required=True, metavar="NAME", help="of launchers/slurm, or a .yaml file")
    command.add_argument("--partition", metavar="NAME")
    command.add_argument("--time", metavar="TIME", help="limit of one start, as Slurm writes it: 90 or 12:00:00 or 2-0")
    command.add_argument("--gpus-per-node", type=int, metavar="N")


def add_evaluation(command: Any) -> None:
    """How snapshots are evaluated."""
    add_measures(command)
    command.add_argument("--best", default="fwd", metavar="METRIC", help="its value nearest to 0 is tagged best (default: fwd)")
    command.add_argument("--in-flight", type=positive, default=2, metavar="N", help="evaluation jobs at a time (default: 2)")


def train(options: argparse.Namespace) -> None:
    """Submit a training job."""
    from wavegan_dist import config
    from wavegan_dist.cluster import submit
    from wavegan_dist.cluster.freeze import config_file
    from wavegan_dist.cluster.job import TrainJob
    from wavegan_dist.cluster.profile import load_profile

    profile = load_profile(options.profile, nodes=options.nodes, **resources(options))
    experiment = config.load(options.config, options.overrides)
    run_dir = (options.run_dir or Path("runs") / options.config.stem).absolute()
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
    """Submit evaluation jobs."""
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
        arguments=measures(options),
        best=options.best,
        in_flight=options.in_flight,
    )
