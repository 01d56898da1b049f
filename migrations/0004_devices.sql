-- What a job needs on a GPU, by the estimate of its submit; 0: no GPU can do it, as none could before this version.

ALTER TABLE jobs ADD COLUMN gpu_memory_bytes INTEGER NOT NULL DEFAULT 0;
