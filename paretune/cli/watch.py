"""``paretune watch``."""

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.common import job_id
from paretune.cli.output import print_json
from paretune.cli.output import reported
from paretune.cli.submit import finish


@reported
def watch(
    job: options.JobId,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Follow a job until it is over: trials, best so far, time left. Ctrl-C only stops watching.

    \b
    Examples:
      paretune watch latest
      paretune watch JOB --json      (waits, then prints the finished job)
    """
    with connect(url, api_key, home) as client:
        done = finish(client, client.job(job_id(client, job)), as_json=as_json)
        if as_json:
            print_json(done)
