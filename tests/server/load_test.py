#!/usr/bin/python3
"""draftd under load, with a worker that only pretends to train: thousands of queued jobs, a thousand watchers, some that
never read. Prints what it measured and fails when the daemon becomes slow for others, forgets a job, or keeps memory.

    load_test.py --build BUILD [--jobs 10000] [--watchers 1000]
"""

import argparse
import concurrent.futures
import os
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "api"))
from draftd_api import Daemon, Job, eventually, pb  # noqa: E402

PER_CONNECTION = 100  # streams that draftd allows one connection


class Latency:
    """Asks GetJob all the time and remembers how long each answer took."""

    def __init__(self, daemon, job_id):
        self.seconds = []
        self.stop = threading.Event()
        self.channel = daemon.connect()
        self.jobs = pb.jobs_grpc.JobServiceStub(self.channel)
        self.request = pb.jobs.GetJobRequest(job_id=job_id)
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.wait(0.005):
            begin = time.monotonic()
            self.jobs.GetJob(self.request, timeout=60)
            self.seconds.append(time.monotonic() - begin)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.stop.set()
        self.thread.join()
        self.channel.close()

    def __str__(self):
        ordered = sorted(self.seconds)
        at = lambda part: 1000 * ordered[min(int(part * len(ordered)), len(ordered) - 1)]
        return f"GetJob meanwhile: median {at(.5):.1f} ms, 99 % {at(.99):.1f} ms, longest {at(1):.0f} ms"


def spec(folder, script, steps):
    job = pb.jobs.JobSpec(display_name=script, model=folder, dataset=os.path.join(folder, "prompts.txt"),
                          checkpoint_every=1000000)
    job.rewards.add(kind="clip", path=folder)
    job.length.steps = steps
    return job


def submit_many(daemon, folder, count):
    request = pb.jobs.CreateJobRequest(spec=spec(folder, "", 5))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return [job.id for job in pool.map(lambda _: daemon.jobs.CreateJob(request, timeout=120).job, range(count))]


def all_jobs(daemon):
    found, token = [], ""
    while True:
        page = daemon.jobs.ListJobs(pb.jobs.ListJobsRequest(page_size=1000, page_token=token), timeout=60)
        found += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            return found


def queue(daemon, folder, first, count):
    before = daemon.memory_kib()
    with Latency(daemon, first) as latency:
        begin = time.monotonic()
        ids = submit_many(daemon, folder, count)
        took = time.monotonic() - begin
    kib = (daemon.memory_kib() - before) / count
    print(f"{count} jobs queued in {took:.1f} s, {kib:.1f} KiB each; {latency}")
    begin = time.monotonic()
    listed = all_jobs(daemon)
    print(f"listed in {time.monotonic() - begin:.2f} s")
    assert sorted(listed) == sorted(ids + [first]), "the list is not what was submitted"
    assert max(latency.seconds) < 5, latency
    assert kib < 16, "a queued job costs too much memory"

    begin = time.monotonic()
    assert daemon.stop() == 0
    stopped = time.monotonic()
    daemon.start()
    print(f"stopped in {stopped - begin:.2f} s, ready again after {time.monotonic() - stopped:.2f} s")
    info = daemon.system.GetServerInfo(pb.system.GetServerInfoRequest(), timeout=60)
    assert info.queued_jobs + info.running_jobs == count + 1, info
    return ids


def watch(daemon, running, victim, count):
    """Half of the watchers look at a running job, half at one that is cancelled under their eyes."""
    channels = [daemon.connect() for _ in range((count + PER_CONNECTION - 1) // PER_CONNECTION)]
    stubs = [pb.jobs_grpc.JobServiceStub(channel) for channel in channels]
    before, descriptors = daemon.memory_kib(), daemon.descriptors()
    with Latency(daemon, running) as latency:
        begin = time.monotonic()
        streams = [stubs[i // PER_CONNECTION].WatchJobs(
            pb.jobs.WatchJobsRequest(job_id=victim if i % 2 else running), timeout=600) for i in range(count)]
        for stream in streams:
            assert len(next(stream).snapshot) == 1
        print(f"{count} watchers have their snapshot after {time.monotonic() - begin:.1f} s, "
              f"{(daemon.memory_kib() - before) / count:.1f} KiB each")
        time.sleep(3)  # those of the running job do not read: what they miss may cost nothing
        begin = time.monotonic()
        daemon.jobs.CancelJob(pb.jobs.CancelJobRequest(job_id=victim), timeout=60)
        for stream in streams[1::2]:
            assert any(message.event.job.state == Job.STATE_CANCELLED for message in stream)
        print(f"{count // 2} watchers told of a cancelled job within {time.monotonic() - begin:.2f} s; {latency}")
        for stream in streams[::2]:
            assert next(stream).event.job_id == running
            stream.cancel()
    for channel in channels:
        channel.close()
    eventually(lambda: daemon.descriptors() <= descriptors + 2)
    kept = daemon.memory_kib() - before
    print(f"{kept} KiB kept when all are gone")
    assert max(latency.seconds) < 5, latency
    assert kept < 64 * 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--jobs", type=int, default=10000)
    parser.add_argument("--watchers", type=int, default=1000)
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="draftd-load-")
    for name, text in {"weights": "w", "prompts.txt": "a cat\na dog\n"}.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)
    daemon = Daemon(args.build, "--worker", os.path.join(args.build, "tests", "fakes", "fake_worker"), "--max-queue",
                    str(args.jobs + 10))
    try:
        running = daemon.submit(spec(folder, "ms=10", 1000000)).id
        ids = queue(daemon, folder, running, args.jobs)
        daemon.wait(running, lambda job: job.state == Job.STATE_RUNNING)
        watch(daemon, running, ids[-1], args.watchers)
        assert daemon.stop() == 0
    finally:
        daemon.remove()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
