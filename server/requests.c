#include "requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "message.h"

bool draftd_check_request_id(const char *request_id, struct draft_error *err)
{
    size_t length = strlen(request_id);
    for (size_t i = 0; i < length; i++)
        if (request_id[i] <= 0x20 || request_id[i] >= 0x7f)
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "request_id",
                                    "a request id is made of printable ASCII characters, best a UUID");
    return length <= 64 || draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "request_id",
                                            "a request id has at most 64 characters, this one %zu", length);
}

void draftd_hash_request(const char *salt, const ProtobufCMessage *message, char hash[DRAFTD_HASH_SIZE])
{
    size_t before = strlen(salt) + 1, size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = draftd_new(before + size);
    memcpy(bytes, salt, before);
    protobuf_c_message_pack(message, bytes + before);
    draft_checksum_buffer(bytes, before + size, hash);
    free(bytes);
}

bool draftd_find_request(struct draftd *d, const char *request_id, const char *hash, bool job, int64_t *number,
                         struct draft_error *err)
{
    int found = 0;
    int64_t made_job = 0, made_preview = 0;
    *number = 0;
    if (*request_id == '\0')
        return true;
    if (!draftd_store_find_request(d->store, request_id, hash, &found, &made_job, &made_preview, err))
        return false;
    if (found == 0)
        return true;
    if (found < 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "request_id",
                                "this request id was used for another request; make a new one for each");
    *number = job ? made_job : made_preview;
    return *number ||
           draft_fail_field(err, DRAFT_NOT_FOUND, "request_id", "what this request made has been deleted since");
}

bool draftd_page(int32_t page_size, const char *page_token, uint64_t filter, int *size, int64_t *before,
                 struct draft_error *err)
{
    if (page_size < 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "page_size", "a page cannot have %d entries", page_size);
    *size = page_size == 0 ? 50 : page_size > 1000 ? 1000 : page_size;
    *before = 0;
    if (*page_token == '\0')
        return true;
    unsigned long long number, of_filter;
    int end = 0;
    if (strlen(page_token) > 40 || sscanf(page_token, "%18llu.%16llx%n", &number, &of_filter, &end) != 2 ||
        page_token[end] != '\0' || number == 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "page_token",
                                "not a token of this list; begin with an empty one");
    if (of_filter != filter)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "page_token",
                                "the token belongs to a list with other filters; begin with an empty one");
    *before = (int64_t)number;
    return true;
}

size_t draftd_page_fit(void *messages, size_t count, int size)
{
    ProtobufCMessage **message = messages;
    size_t bytes = 0, n = 0;
    for (; n < count && n < (size_t)size; n++) {
        bytes += protobuf_c_message_get_packed_size(message[n]) + 8;
        if (n > 0 && bytes > DRAFTD_REPLY_BYTES)
            break;
    }
    return n;
}

char *draftd_page_token(int64_t before, uint64_t filter)
{
    return draftd_format("%llu.%llx", (unsigned long long)before, (unsigned long long)filter);
}
