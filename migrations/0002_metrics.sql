-- Points of series.

CREATE TABLE series (
  series INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE metrics (
  job INTEGER NOT NULL REFERENCES jobs (job) ON DELETE CASCADE,
  series INTEGER NOT NULL REFERENCES series (series),
  step INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  time_us INTEGER NOT NULL,
  value REAL,                                -- NULL unless kind = 0: SQLite has no NaN
  kind INTEGER NOT NULL,                     -- 0 finite, 1 NaN, 2 +infinity, 3 -infinity
  PRIMARY KEY (job, series, step)
) STRICT, WITHOUT ROWID;
