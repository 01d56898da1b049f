-- Previews with their pictures; requests that must not be done twice.

CREATE TABLE previews (
  preview INTEGER PRIMARY KEY AUTOINCREMENT, -- "preview-<preview>"
  job INTEGER NOT NULL REFERENCES jobs (job) ON DELETE CASCADE,
  spec BLOB NOT NULL,                        -- draftd.v1.PreviewSpec, prompts filled in
  state INTEGER NOT NULL,                    -- draftd.v1.Preview.State
  reason TEXT NOT NULL DEFAULT '',
  code INTEGER NOT NULL DEFAULT 0,           -- enum draft_code of a failure
  step INTEGER NOT NULL DEFAULT 0,
  create_us INTEGER NOT NULL,
  end_us INTEGER NOT NULL DEFAULT 0,
  total INTEGER NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0           -- workers that began it and ended without finishing
) STRICT;
CREATE INDEX previews_by_job ON previews (job, preview);
CREATE INDEX previews_by_state ON previews (state);

CREATE TABLE pictures (
  preview INTEGER NOT NULL REFERENCES previews (preview) ON DELETE CASCADE,
  picture INTEGER NOT NULL,
  prompt TEXT NOT NULL,
  seed INTEGER NOT NULL,
  height INTEGER NOT NULL,
  width INTEGER NOT NULL,
  reward REAL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (preview, picture)
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
  request_id TEXT PRIMARY KEY,
  hash TEXT NOT NULL,                        -- of what was asked: the same id with another wish is refused
  job INTEGER REFERENCES jobs (job) ON DELETE SET NULL,
  preview INTEGER REFERENCES previews (preview) ON DELETE SET NULL,
  time_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_job ON requests (job);
CREATE INDEX requests_by_preview ON requests (preview);
