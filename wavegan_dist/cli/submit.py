"""`wavegan submit train` and `wavegan submit evaluate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wavegan_dist.cli.arguments import EXPERIMENT, RUN_DIR, positive_int, run_dir_of
from wavegan_dist.cli.command import Command, argument
from wavegan_dist.cli.evaluate import METRIC_ARGUMENTS, metric_arguments
from wavegan_dist.errors import UsageError

if TYPE_CHECKING:
    from wavegan_dist.cluster.job import EvaluateJob
    from wavegan_dist.run_folder import RunFolder


def _metric_with_optimum(text: str) -> str:
    from wavegan_dist.evaluation_result import optimum

    if optimum(text) is None:
        raise argparse.ArgumentTypeError(f"{text} has no best value; choose its distance to real images, for example glcm_bits")
    return text


RESOURCES = (  # all but the first override settings of the profile
    argument("--profile", required=True, metavar="NAME", help="profile: the name of a file in launchers/slurm, or a path"),
    argument("--partition", metavar="NAME", help="partition; overrides the profile"),
    argument(
        "--time",
        metavar="TIME",
        help="time limit of one start, in Slurm's format: 90 or 12:00:00 or 2-0; overrides the profile",
    ),
    argument("--gpus-per-node", type=int, metavar="N", help="GPUs per node; overrides the profile"),
)
EVALUATION = (
    *METRIC_ARGUMENTS,
    argument(
        "--best",
        type=_metric_with_optimum,
        metavar="METRIC",
        help="tag the snapshot whose METRIC is nearest to its optimum (default: the METRIC of best.json, else fwd or the first "
        "that has an optimum)",
    ),
    argument(
        "--in-flight",
        type=positive_int,
        default=2,
        metavar="N",
        help="most evaluation jobs at a time (default: 2)",
    ),
)
DRY_RUN = argument("--dry-run", action="store_true", help="print the batch script and submit nothing")


def train(options: argparse.Namespace) -> None:
    from wavegan_dist import config
    from wavegan_dist.cluster import submit
    from wavegan_dist.cluster.executor import job_log
    from wavegan_dist.cluster.freeze import config_file
    from wavegan_dist.cluster.job import TrainJob
    from wavegan_dist.cluster.profile import load_profile
    from wavegan_dist.run_folder import RunFolder
    from wavegan_dist.tracking import check_tracking

    profile = load_profile(options.profile, nodes=options.nodes, **resources(options))
    experiment = config.load(options.config, options.overrides)
    config.check_passwords(experiment)
    if options.evaluate_profile:
        experiment.data.index_for_evaluation()  # refuses several data sets
    else:
        _refuse_evaluation_options(options)
    run_dir = run_dir_of(options).absolute()
    evaluation = evaluation_job(options, run_dir, options.evaluate_profile, {}) if options.evaluate_profile else None
    arguments = ["--config", str(config_file(experiment, RunFolder(run_dir).cluster)), "--run-dir", str(run_dir)]
    job = TrainJob(run_dir=run_dir, profile=profile, arguments=arguments, evaluation=evaluation)
    config.check_batch_division(profile.world_size, experiment.train)
    job.run_folder.check_config(experiment)
    check_tracking(job.run_folder, experiment)
    if options.dry_run:
        print(submit.training_script(job), end="")
        return
    job_id = submit.submit_training(experiment, job)
    print(f"job {job_id}: {run_dir}; its log: {job_log(job, job_id)}")


def _refuse_evaluation_options(options: argparse.Namespace) -> None:
    """Raise UsageError if an option of the evaluation has another value than its default."""
    for option in EVALUATION:
        name = option.names[0].removeprefix("--").replace("-", "_")
        if getattr(options, name) not in (option.settings.get("default"), False):
            raise UsageError(f"{option.names[0]} is for evaluations; add --evaluate-profile NAME, or leave it out")


def evaluate(options: argparse.Namespace) -> None:
    from wavegan_dist import config
    from wavegan_dist.cluster.evaluation_queue import submit_evaluations
    from wavegan_dist.cluster.submit import evaluation_script
    from wavegan_dist.run_folder import RunFolder

    run = RunFolder(options.run_dir.absolute())
    data = config.load(run.config).data.index_for_evaluation()
    names = selected_snapshots(run, options.snapshots)
    job = evaluation_job(options, run.path, options.profile, resources(options))
    if options.dry_run:
        print(evaluation_script(job, names[0], data), end="")
        return
    for name, job_id in submit_evaluations(job, None if options.snapshots == "new" else names).items():
        print(f"job {job_id}: {name}")


def selected_snapshots(run: "RunFolder", selection: str) -> list[str]:
    """Return the names of the snapshots that `--snapshots` selects, oldest first or in the order of the list.

    Args:
        run: the run folder.
        selection: "new": those without a result, whatever is in the queue; "all"; or a comma-separated list of names.

    Raises:
        UsageError: no snapshot is selected, or the list names one that does not exist.
    """
    existing = [path.name for path in run.snapshots()]
    if selection == "new":
        names = [name for name in existing if not run.evaluation(name).exists()]
    else:
        names = existing if selection == "all" else selection.split(",")
    if missing := sorted(set(names) - set(existing)):
        raise UsageError(f"{run.path} has no snapshot {missing[0]}; there are {', '.join(existing) or 'none'}")
    if not names:
        raise UsageError(f"{run.path} has no {'snapshot without a result' if existing else 'snapshot'}; nothing to submit")
    return names


def resources(options: argparse.Namespace) -> dict[str, object]:
    """Return the settings of the Slurm profile that the options override, by name; None for options that are not given."""
    return {"partition": options.partition, "time": options.time, "gpus_per_node": options.gpus_per_node}


def evaluation_job(options: argparse.Namespace, run_dir: Path, profile: str, changes: dict[str, object]) -> "EvaluateJob":
    """Return the evaluation job that the options describe, without submitting it.

    Args:
        options: the parsed options `EVALUATION`.
        run_dir: the run folder.
        profile: name or path of the job's Slurm profile.
        changes: settings that override those of the profile; None: no change.

    Raises:
        UsageError: there is no such profile, it is not valid or has several processes, a metric is unknown, or no metric
            computes `--best`.
    """
    from wavegan_dist.cluster.job import EvaluateJob
    from wavegan_dist.cluster.profile import load_profile

    loaded = load_profile(profile, **changes)
    if loaded.world_size > 1:
        raise UsageError(
            f"an evaluation is one process, and profile {profile} has {loaded.world_size} ({loaded.nodes} nodes x "
            f"{loaded.processes}); choose a profile of one process, such as gpu1"
        )
    _check_metrics(options)
    return EvaluateJob(
        run_dir=run_dir,
        profile=loaded,
        arguments=metric_arguments(options),
        best=options.best,
        in_flight=options.in_flight,
    )


def _check_metrics(options: argparse.Namespace) -> None:
    """Raise UsageError if `--metrics` has an unknown name, or none of the metrics computes the value `--best`."""
    if options.metrics is None and options.best is None:
        return
    from wavegan_dist.evaluate.registry import DEFAULT_METRICS, check_names
    from wavegan_dist.evaluation_result import value_names

    metrics = DEFAULT_METRICS if options.metrics is None else check_names(options.metrics.split(","))
    names = [name for metric in metrics for name in value_names(metric, options.extractor)]
    if options.best is not None and options.best not in names:
        raise UsageError(f"--best {options.best} is no value of these metrics; they compute {', '.join(names)}")


SUBMIT_TRAIN = Command(
    name="submit train",
    help="train as a Slurm job that is requeued until the run is finished",
    description="Submit a job that runs `wavegan train` on all nodes. After preemption or a time limit, the job is requeued\n"
    "and resumes, until the run is finished.",
    example="wavegan submit train --config configs/cifar10.yaml --profile gpu8 --nodes 2 --time 12:00:00",
    arguments=(
        *EXPERIMENT,
        RUN_DIR,
        *RESOURCES,
        argument("--nodes", type=positive_int, metavar="N", help="number of nodes; overrides the profile"),
        DRY_RUN,
        argument("--evaluate-profile", metavar="NAME", help="evaluate each snapshot in a job with this profile"),
        *EVALUATION,
    ),
    run=train,
)
SUBMIT_EVALUATE = Command(
    name="submit evaluate",
    help="evaluate snapshots of a run, each in its own job",
    description="Submit an array of jobs. Each runs `wavegan evaluate` for one snapshot of a run, with the dataset of the run.",
    example="wavegan submit evaluate --run runs/cifar10 --snapshots new --profile gpu1",
    arguments=(
        argument("--run", type=Path, required=True, metavar="RUN", dest="run_dir", help="run folder"),
        argument(
            "--snapshots",
            required=True,
            metavar="all|new|LIST",
            help="new: snapshots without a result; LIST: names, such as kimg-000100,kimg-000200; snapshots whose job is in the "
            "queue are left out",
        ),
        *RESOURCES,
        DRY_RUN,
        *EVALUATION,
    ),
    run=evaluate,
)
