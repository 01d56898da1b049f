"""What the API tests share: Python code generated from the committed .proto files alone, a private draftd, and errors
taken apart. Only Debian's python3, python3-grpcio, python3-protobuf and protobuf-compiler-grpc are used."""

import atexit
import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types

import google
import grpc

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
DEMO = os.path.join(SOURCE, "deploy", "demo")
SECONDS = 30  # longest wait for one quick call


def generate(folder):
    """Compiles the protocol into `folder` and returns its modules by short name."""
    proto = os.path.join(SOURCE, "proto")
    plugin = shutil.which("grpc_python_plugin")
    if plugin is None:
        sys.exit("grpc_python_plugin is missing: apt install protobuf-compiler-grpc")
    files = ["google/rpc/status.proto", "google/rpc/error_details.proto", "grpc/health/v1/health.proto"]
    files += ["draftd/v1/" + name for name in sorted(os.listdir(os.path.join(proto, "draftd", "v1")))]
    optional = "grpc/reflection/v1/reflection.proto"
    if os.path.exists(os.path.join(proto, optional)):
        files.append(optional)
    subprocess.run(["protoc", "-I" + proto, "-I/usr/include", "--python_out=" + folder, "--grpc_python_out=" + folder,
                    "--plugin=protoc-gen-grpc_python=" + plugin] + files, check=True)
    # The generated folders google/ and grpc/ would hide the installed packages: join them instead.
    sys.path.insert(0, folder)
    google.__path__.append(os.path.join(folder, "google"))
    grpc.__path__.append(os.path.join(folder, "grpc"))
    names = types.SimpleNamespace()
    for path in files:
        short = os.path.basename(path)[:-len(".proto")]
        module = path[:-len(".proto")].replace("/", ".")
        setattr(names, short, importlib.import_module(module + "_pb2"))
        setattr(names, short + "_grpc", importlib.import_module(module + "_pb2_grpc"))
    return names


_generated = tempfile.TemporaryDirectory(prefix="draftd-api-")
pb = generate(_generated.name)
Job, Preview = pb.jobs.Job, pb.previews.Preview
ENDED = (Job.STATE_SUCCEEDED, Job.STATE_FAILED, Job.STATE_CANCELLED)


class Error:
    """An RpcError taken apart: code, sentence, reason, domain and metadata of its ErrorInfo, fields of its BadRequest."""

    def __init__(self, error):
        self.code = error.code()
        self.message = error.details()
        self.reason = self.domain = None
        self.fields, self.metadata = [], {}
        packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
        self.status = None
        if packed is None:
            return
        self.status = pb.status.Status.FromString(packed)
        assert self.status.code == self.code.value[0] and self.status.message == self.message, self.status
        for detail in self.status.details:
            info, bad = pb.error_details.ErrorInfo(), pb.error_details.BadRequest()
            if detail.Unpack(info):
                self.reason, self.domain, self.metadata = info.reason, info.domain, dict(info.metadata)
            elif detail.Unpack(bad):
                self.fields = [violation.field for violation in bad.field_violations]
                assert all(v.description == self.message for v in bad.field_violations), bad

    def __repr__(self):
        return f"{self.code} {self.reason} {self.fields}: {self.message}"


def sanitizers(build):
    """What `build` was compiled with: "", "address,undefined" or "thread"."""
    with open(os.path.join(build, "CMakeCache.txt")) as cache:
        return next((line.split("=", 1)[1].strip() for line in cache if line.startswith("DRAFT_SANITIZE")), "")


_daemons = []


def clean_up():
    """Leaves neither processes nor folders behind, however the test ends; to be called before os._exit()."""
    while _daemons:
        _daemons[-1].remove()
    _generated.cleanup()


def interrupted(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one shall not interrupt the cleaning up
    raise KeyboardInterrupt(f"signal {number}")  # unittest lets nothing else through


atexit.register(clean_up)
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, interrupted)


class Daemon:
    """A private draftd in a temporary folder, which `keep` leaves to the caller."""

    def __init__(self, build, *options, keep=None):
        self.build = build
        self.keep = keep
        self.folder = keep or tempfile.mkdtemp(prefix="draftd-api-")
        self.socket = os.path.join(self.folder, "d.sock")
        self.log_path = os.path.join(self.folder, "log")
        self.options = options
        self.process = self.channel = None
        _daemons.append(self)
        self.start()

    def start(self):
        log = open(self.log_path, "ab")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", os.path.join(self.build, "draftd"), "--state-dir", os.path.join(self.folder, "state"), "--socket",
             self.socket, "--demo-dir", DEMO, "--verbose", *self.options], stderr=log, env=environment)
        log.close()
        end = time.monotonic() + 60
        while True:
            if self.process.poll() is not None:
                raise AssertionError("draftd did not start:\n" + self.log()[-4000:])
            with contextlib.suppress(grpc.FutureTimeoutError):
                self.channel = self.connect()
                grpc.channel_ready_future(self.channel).result(timeout=1)
                break
            self.channel.close()
            assert time.monotonic() < end, "draftd is not ready after a minute:\n" + self.log()[-4000:]
        self.bind(self.channel)

    def connect(self):
        return grpc.insecure_channel("unix:" + self.socket, options=[("grpc.use_local_subchannel_pool", 1)])

    def bind(self, channel):
        self.jobs = pb.jobs_grpc.JobServiceStub(channel)
        self.metrics = pb.metrics_grpc.MetricServiceStub(channel)
        self.previews = pb.previews_grpc.PreviewServiceStub(channel)
        self.checkpoints = pb.checkpoints_grpc.CheckpointServiceStub(channel)
        self.system = pb.system_grpc.SystemServiceStub(channel)
        self.health = pb.health_grpc.HealthStub(channel)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self, number=signal.SIGTERM, within=90):
        """Returns the exit status."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=within)

    def remove(self):
        if self in _daemons:
            _daemons.remove(self)
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.channel:
            self.channel.close()
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # what the kernel says about the process
    def workers(self):
        """Process ids of its children, made by whichever thread."""
        found = []
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{self.process.pid}/task/{task}/children") as file:
                found += file.read().split()
        return found

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory_kib(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))

    # whole calls
    def get(self, job_id):
        return self.jobs.GetJob(pb.jobs.GetJobRequest(job_id=job_id), timeout=SECONDS).job

    def submit(self, spec, **more):
        return self.jobs.CreateJob(pb.jobs.CreateJobRequest(spec=spec, **more), timeout=120).job

    def wait(self, job_id, condition, seconds=300):
        """Waits until condition(job) holds, by watching."""
        stream = self.jobs.WatchJobs(pb.jobs.WatchJobsRequest(job_id=job_id), timeout=seconds)
        job = None
        for message in stream:
            for job in list(message.snapshot) + ([message.event.job] if message.event.HasField("job") else []):
                if condition(job):
                    stream.cancel()
                    return job
        raise AssertionError(f"{job_id} ended before what was waited for:\n{job}\n{self.log()[-4000:]}")


def eventually(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def tiny_spec(folder, steps=4, **more):
    """A job of seconds: the demo model, 4 denoising steps, 2 pictures a step."""
    dataset = os.path.join(folder, "prompts.txt")
    if not os.path.exists(dataset):
        with open(dataset, "w") as file:
            file.write("an animal\na bird\na fruit\n")
    spec = pb.jobs.JobSpec(display_name="tiny", model=os.path.join(DEMO, "emoji-sd"), dataset=dataset, kl_coeff=0.25,
                           checkpoint_every=2, checkpoint_keep=10, threads=2)
    spec.rewards.add(kind="clip", path=os.path.join(DEMO, "emoji-clip"))
    spec.sampling.steps = 4
    spec.sampling.guidance = 3
    spec.lora.rank = 4
    spec.optimizer.learning_rate = 1e-3
    spec.length.steps = steps
    spec.length.micro_batch = 2
    spec.length.global_batch = 2
    spec.evaluation.every = -1
    for key, value in more.items():
        setattr(spec, key, value)
    return spec
