/* Random ids of requests, by which the daemon knows a retry from a second wish. */
#ifndef DRAFT_CLIENT_REQUEST_ID_H
#define DRAFT_CLIENT_REQUEST_ID_H

enum { DRAFT_REQUEST_ID_BYTES = 37 };

/* A random UUID (version 4). Aborts when the system has no random numbers. */
void draft_request_id(char id[DRAFT_REQUEST_ID_BYTES]);

#endif
