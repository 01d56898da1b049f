-- Jobs, who ran them, what they saved, what was told about them. Times are microseconds since the epoch; uint64 values
-- are kept as the int64 with the same bits.

CREATE TABLE jobs (
  job INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used again: "job-<job>"
  spec BLOB NOT NULL,                        -- draftd.v1.JobSpec
  state INTEGER NOT NULL,                    -- draftd.v1.Job.State
  reason TEXT NOT NULL DEFAULT '',
  reason_code TEXT NOT NULL DEFAULT '',
  create_us INTEGER NOT NULL,
  update_us INTEGER NOT NULL,
  start_us INTEGER NOT NULL DEFAULT 0,
  end_us INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  crashes INTEGER NOT NULL DEFAULT 0,        -- of workers, since the submit or the last resume
  queue_rank INTEGER NOT NULL DEFAULT 0,     -- smaller goes first
  prompt_count INTEGER NOT NULL,
  fingerprint TEXT NOT NULL,
  total_steps INTEGER NOT NULL,
  trained_parameters INTEGER NOT NULL,
  memory_bytes INTEGER NOT NULL,
  height INTEGER NOT NULL,
  width INTEGER NOT NULL,
  warnings TEXT NOT NULL DEFAULT '',         -- one a line
  step INTEGER NOT NULL DEFAULT 0,
  seconds_per_step REAL NOT NULL DEFAULT 0,
  reward REAL, kl REAL, lpips REAL,          -- the latest; NULL: none yet
  revision INTEGER NOT NULL DEFAULT 0        -- of the last event about it
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, queue_rank);

CREATE TABLE attempts (
  job INTEGER NOT NULL REFERENCES jobs (job) ON DELETE CASCADE,
  attempt INTEGER NOT NULL,
  start_us INTEGER NOT NULL,
  end_us INTEGER NOT NULL DEFAULT 0,
  start_step INTEGER NOT NULL,
  end_step INTEGER NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '',
  pid INTEGER NOT NULL,                      -- with the two below: which process it was
  pid_start INTEGER NOT NULL,                -- field 22 of /proc/PID/stat
  boot TEXT NOT NULL,
  PRIMARY KEY (job, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
  job INTEGER NOT NULL REFERENCES jobs (job) ON DELETE CASCADE,
  step INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  file TEXT NOT NULL,                        -- name in jobs/job-<job>/checkpoints/
  bytes INTEGER NOT NULL,
  checksum TEXT NOT NULL,
  create_us INTEGER NOT NULL,
  PRIMARY KEY (job, step)
) STRICT, WITHOUT ROWID;

-- What watchers are told. No reference to jobs: the event of a deletion outlives its job.
CREATE TABLE events (
  revision INTEGER PRIMARY KEY AUTOINCREMENT,
  time_us INTEGER NOT NULL,
  kind INTEGER NOT NULL,                     -- draftd.v1.JobEvent.Kind
  job INTEGER NOT NULL,
  state INTEGER NOT NULL,                    -- of the job at that moment
  reason TEXT NOT NULL DEFAULT '',
  reason_code TEXT NOT NULL DEFAULT '',
  attempt INTEGER NOT NULL DEFAULT 0,
  step INTEGER NOT NULL DEFAULT 0,
  preview INTEGER NOT NULL DEFAULT 0,
  message TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX events_by_job ON events (job, revision);
