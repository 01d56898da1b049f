/* What requests of several services share: ids that make a retry harmless, and pages. */
#ifndef DRAFTD_REQUESTS_H
#define DRAFTD_REQUESTS_H

#include "state.h"

enum { DRAFTD_HASH_SIZE = 33, DRAFTD_REPLY_BYTES = 900 << 10 };

/* For so long a retry is recognised; older ids are forgotten at the start and every thousand events. */
#define DRAFTD_REQUESTS_KEPT_US (INT64_C(30) * 24 * 3600 * 1000000)

/* "" or up to 64 printable ASCII characters. */
bool draftd_check_request_id(const char *request_id, struct draft_error *err);
/* `salt` goes into it beside the message (a job id, "validate"). */
void draftd_hash_request(const char *salt, const ProtobufCMessage *message, char hash[DRAFTD_HASH_SIZE]);
/* What this request made before: *number stays 0 when it is new (or has no id). The same id with another hash, or for
 * something deleted since, is refused. Needs the lock. */
bool draftd_find_request(struct draftd *d, const char *request_id, const char *hash, bool job, int64_t *number,
                         struct draft_error *err);

/* page_size and page_token of a request: how many, and below which number (0: from the newest). `filter` is what must
 * be equal from page to page. */
bool draftd_page(int32_t page_size, const char *page_token, uint64_t filter, int *size, int64_t *before,
                 struct draft_error *err);
/* How many of the messages a page holds: at most `size`, and fewer when they would make the reply too large to send. */
size_t draftd_page_fit(void *messages, size_t count, int size);
char *draftd_page_token(int64_t before, uint64_t filter); /* malloc'd */

#endif
