"""Passwords of MLflow's URI: a run is tracked with them, and no file, log or store shows them."""

import stat
from pathlib import Path

import pytest

from tests.helpers import refused
from wavegan_dist import config as configuration
from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError
from wavegan_dist.redact import holds_password, redacted
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.tracking_info import TrackingInfo, save_password
from wavegan_dist.train.loop import train

SECRET = "pa55-w0rd"
NOWHERE = f"http://alice:{SECRET}@127.0.0.1:9"


@pytest.fixture
def guarded(proxy) -> str:
    """URI, with the password, of a server that answers with 401 without it."""
    proxy.password = f"alice:{SECRET}"
    return proxy.uri.replace("://", f"://alice:{SECRET}@")


def files_with_secret(*folders: Path) -> list[str]:
    paths = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return sorted(path.name for path in paths if SECRET.encode() in path.read_bytes())


def test_a_run_with_a_password_is_tracked_and_only_tracking_json_holds_it(tmp_path, config, wavegan, guarded, server, stored):
    run = tmp_path / "run"
    command = ("train", "--config", config, "--run-dir", run, "tracking.enabled=true", f"tracking.uri={guarded}")
    outcome = wavegan(*command, "train.total_kimg=0.16")
    assert outcome.returncode == 0, outcome.stderr
    assert stored(run).status == "FINISHED"
    assert (run / "snapshots").exists()
    assert (run / "checkpoints").exists()
    assert files_with_secret(run, server.folder) == ["tracking.json"]
    assert stat.S_IMODE((run / "tracking.json").stat().st_mode) == 0o600
    assert SECRET not in outcome.stdout + outcome.stderr
    bare = guarded.replace(f"alice:{SECRET}@", "")
    assert stored(run).client.get_run(stored(run).run_id).data.params["tracking.uri"] == bare
    # The settings of a run, which hold no password, resume it.
    resumed = wavegan("train", "--config", run / "config.yaml", "--run-dir", run, "train.total_kimg=0.32")
    assert resumed.returncode == 0, resumed.stderr
    assert stored(run).steps("lam")[-1] == 320
    assert files_with_secret(run, server.folder) == ["tracking.json"]


@pytest.mark.slow
def test_a_server_that_is_down_is_named_without_the_password(tmp_path, config, wavegan):
    run = tmp_path / "run"
    command = ("train", "--config", config, "--run-dir", run, "tracking.enabled=true", "train.total_kimg=0.064")
    failed = wavegan(*command, f"tracking.uri={NOWHERE}", "train.on_nonfinite=stop")
    assert failed.returncode == 0
    assert "could not be sent to http://127.0.0.1:9;" in failed.stderr
    synced = wavegan("track", "sync", run)
    refused(synced, "http://127.0.0.1:9 did not accept", exit_code=1)
    assert SECRET not in failed.stderr + synced.stderr
    assert files_with_secret(run) == ["tracking.json"]


@pytest.mark.parametrize(
    "override",
    [
        f"tracking.uri=http://alice:{SECRET}@host: x",  # not YAML
        f"tracking.uri=ftp://alice:{SECRET}@host",
        f"tracking.uri=http://alice:{SECRET}/x@host",
        f"tracking.uri=postgresql://alice:a/{SECRET}@host/db",
        f"tracking.uri=[http://alice:{SECRET}@host]",
        f"tracking.experiment=[http://alice:{SECRET}@host]",
        f"tracking.uri=http://alice:{SECRET}@host:port",
    ],
)
def test_an_error_about_the_settings_holds_no_password(tmp_path, config, wavegan, override):
    outcome = wavegan("train", "--config", config, "--run-dir", tmp_path / "run", "tracking.enabled=true", override)
    refused(outcome)
    assert SECRET not in outcome.stderr


def test_a_submitted_job_finds_the_password_in_tracking_json_only(tmp_path, tracked_config):
    folder, experiment = RunFolder(tmp_path / "run"), configuration.load(tracked_config, [f"tracking.uri={NOWHERE}"])
    folder.path.mkdir()
    save_password(folder, experiment)
    frozen = tmp_path / "experiment.yaml"
    frozen.write_text(experiment.to_yaml())
    assert files_with_secret(tmp_path) == ["tracking.json"]
    assert TrackingInfo.for_start(folder, configuration.load(frozen)).uri == NOWHERE


def test_a_new_password_replaces_the_old_one(tmp_path, tracked_config):
    folder = RunFolder(tmp_path)
    info = TrackingInfo.create(folder, configuration.load(tracked_config, [f"tracking.uri={NOWHERE}"]))
    info.run_id = "1"
    info.save(folder)
    changed: Experiment = configuration.load(tracked_config, ["tracking.uri=http://alice:new@127.0.0.1:9"])
    assert TrackingInfo.for_start(folder, changed).uri == "http://alice:new@127.0.0.1:9"


IN_INDEX = [
    f"http://alice:{SECRET}@host/set",
    f"https://{SECRET}@host/set/index.json",
    f"ftp://alice:{SECRET}@host/set",
    f"https://host/set?token={SECRET}",
    f"pipe:curl -sf -u alice:{SECRET} http://host/{{file}}",
    f"pipe:curl -sf --user 'alice:{SECRET}' http://host/{{file}}",
    f"pipe:curl -sf -H 'Authorization: Bearer {SECRET}' http://host/{{file}}",
    f"pipe:wget -qO- --http-password={SECRET} http://host/{{file}}",
    f"pipe:AWS_SECRET_ACCESS_KEY={SECRET} aws s3 cp s3://bucket/{{file}} -",
    # presigned URLs of Azure, S3 and Google Cloud, and other parameters
    f"pipe:curl -sf 'https://x.blob.core.windows.net/set/{{file}}?sv=2026-01-01&sig={SECRET}'",
    f"pipe:curl -sf 'https://b.s3.amazonaws.com/{{file}}?X-Amz-Credential=a&X-Amz-Signature={SECRET}'",
    f"https://b.s3.amazonaws.com/index.json?AWSAccessKeyId=a&Signature={SECRET}",
    f"https://storage.googleapis.com/b/index.json?X-Goog-Signature={SECRET}",
    f"https://host/set?api_key={SECRET}",
    f"https://host/set;jsessionid={SECRET}",
    # headers, options and variables
    f"pipe:curl -sf -H 'X-Api-Key: {SECRET}' http://host/{{file}}",
    f"pipe:curl -sf -H 'PRIVATE-TOKEN: {SECRET}' http://host/{{file}}",
    f"pipe:curl -sf -H 'Authorization: {SECRET}' http://host/{{file}}",
    f"pipe:curl -sf --cookie session={SECRET} http://host/{{file}}",
    f"pipe:curl -sf --oauth2-bearer {SECRET} http://host/{{file}}",
    f"pipe:curl -sfu alice:{SECRET} http://host/{{file}}",
    f"pipe:lftp -u alice,{SECRET} -e 'cat {{file}}' host",
    f"pipe:sshpass -p {SECRET} ssh host cat {{file}}",
    f"pipe:az storage blob download --account-key {SECRET} --name {{file}}",
    f"pipe:AZURE_STORAGE_KEY={SECRET} az storage blob download --name {{file}}",
    f"pipe:RCLONE_CONFIG_X_PASS={SECRET} rclone cat x:{{file}}",
    f"pipe:openssl enc -d -pass pass:{SECRET} -in {{file}}",
]


@pytest.mark.parametrize("index", IN_INDEX)
def test_a_password_in_data_index_is_refused_before_any_file_is_written(tmp_path, config, index):
    experiment = configuration.load(config, [f"data.index={index!r}"])
    with pytest.raises(UsageError, match=r"data\.index holds a password") as refusal:
        train(experiment, tmp_path / "run")
    assert SECRET not in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_train_and_submit_refuse_a_password_in_data_index(tmp_path, config, wavegan):
    settings = ("--config", config, "--run-dir", tmp_path / "run", f"data.index={IN_INDEX[0]}", f"data.cache={tmp_path}")
    for command in (("train",), ("submit", "train", "--profile", "local", "--dry-run")):
        outcome = wavegan(*command, *settings)
        refused(outcome, "data.index holds a password")
        assert SECRET not in outcome.stdout + outcome.stderr


def test_a_password_in_a_profile_is_refused(tmp_path, config, wavegan):
    profile = tmp_path / "mine.yaml"
    submit = ("submit", "train", "--config", config, "--run-dir", tmp_path / "run", "--profile", profile, "--dry-run")
    for line in (
        f"setup: ['export MLFLOW_TRACKING_PASSWORD={SECRET}']",
        f"container: [apptainer, exec, --env, MLFLOW_TRACKING_PASSWORD={SECRET}, image.sif]",
        f"container: [docker, login, --password, {SECRET}]",
        f"srun: ['--export=ALL,HF_TOKEN={SECRET}']",
        f"sbatch: {{export: 'ALL,HF_TOKEN={SECRET}'}}",
    ):
        profile.write_text(f"time: 60\n{line}\n")
        outcome = wavegan(*submit)
        refused(outcome, f"{line.partition(':')[0]} holds a password")
        assert SECRET not in outcome.stdout + outcome.stderr
    profile.write_text("time: 60\nsetup: ['export MLFLOW_TRACKING_PASSWORD=$(cat ~/.mlflow)']\n")
    assert wavegan(*submit).returncode == 0


def test_a_dry_run_prints_no_password(tmp_path, tracked_config, wavegan):
    submit = ("submit", "train", "--config", tracked_config, "--run-dir", tmp_path / "run", "--profile", "local", "--dry-run")
    outcome = wavegan(*submit, f"tracking.uri={NOWHERE}")
    assert outcome.returncode == 0, outcome.stderr
    assert SECRET not in outcome.stdout + outcome.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    [
        "http://host/set",
        "pipe:curl -sf -u $NAME:$PASSWORD http://host/{file}",
        "pipe:curl -sf -u alice:$PASSWORD http://host/{file}",
        'pipe:curl -sf -H "Authorization: Bearer $TOKEN" http://host/{file}',
        "pipe:docker run -u 1000:1000 image cat /set/{file}",
        "pipe:wget -qO- --http-password=$PASSWORD http://host/{file}",
        "export NCCL_SOCKET_IFNAME=ib0",
        "export TOKENIZERS_PARALLELISM=false",
        "export GOOGLE_APPLICATION_CREDENTIALS=/home/me/key.json",
        "pipe:curl -sf 'https://host/{file}?sv=2026&sig=$SIG'",
        'pipe:curl -sf -H "X-Api-Key: $KEY" http://host/{file}',
        'pipe:curl -sf -H "Authorization: Bearer $(cat ~/.token)" http://host/{file}',
        "pipe:curl -sf --key key.pem -b cookies.txt https://host/{file}",
        "pipe:az storage blob download --account-key $KEY --name {file}",
        "pipe:sshpass -f ~/.password ssh -p 22 host cat {file}",
        "pipe:rsync -au host:/set/{file} /dev/stdout",
        "pipe:sh -c 'date -u +%s; cat {file}'",
        "https://host/set?version=3&key_frame=2&author=x",
        "s3://bucket/set",
    ],
)
def test_what_holds_no_password_is_accepted(text):
    assert not holds_password(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://u:p@host:5000/a", "http://host:5000/a"),
        ("https://token@host", "https://host"),
        ("postgresql+psycopg2://u:p@host/db", "postgresql+psycopg2://u@host/db"),
        ("postgresql://host/db?user=u&password=p", "postgresql://host/db?user=u"),
        ("mysql://host/db?passwd=p&charset=utf8", "mysql://host/db?charset=utf8"),
        ("https://host/x?token=p", "https://host/x"),
        ("cannot read https://h/x?sv=1&sig=p (HTTP 403)", "cannot read https://h/x?sv=1 (HTTP 403)"),
        ("https://h/x?X-Amz-Credential=a&X-Amz-Signature=p&y=2", "https://h/x?X-Amz-Credential=a&y=2"),
        ("https://h/x?key=$KEY&design=z", "https://h/x?key=$KEY&design=z"),
        ("'tracking.uri=http://u:p:q@@host'", "'tracking.uri=http://host'"),
        ('{"uri": "http://u:p@host", "mail": "a@host"}', '{"uri": "http://host", "mail": "a@host"}'),
        ("http://host:5000/a@2x.png and a@host?", "http://host:5000/a@2x.png and a@host?"),
        ("sqlite:////a/b@c.db", "sqlite:////a/b@c.db"),
        ("pipe:curl https://host/a?b=c&d=e", "pipe:curl https://host/a?b=c&d=e"),
    ],
)
def test_only_passwords_are_left_out(text, expected):
    assert redacted(text) == expected == redacted(expected)


def test_the_environment_s_way_leaves_no_password_in_any_file(tmp_path, config, wavegan_with, guarded, server, stored):
    run, uri = tmp_path / "run", guarded.replace(f"alice:{SECRET}@", "")
    credentials = {"MLFLOW_TRACKING_USERNAME": "alice", "MLFLOW_TRACKING_PASSWORD": SECRET}
    command = ("train", "--config", config, "--run-dir", run, "tracking.enabled=true", "train.total_kimg=0.064")
    outcome = wavegan_with({"MLFLOW_TRACKING_URI": uri, **credentials}, *command)
    assert outcome.returncode == 0, outcome.stderr
    assert stored(run).status == "FINISHED"
    assert files_with_secret(run, server.folder) == []
    assert (run / "tracking.json").exists()
