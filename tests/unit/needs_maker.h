/* SPDX-License-Identifier: MIT */
/* Images that say what a dump needs of a machine, for a directory that dump_maker.c writes to. */
#ifndef CKF_TEST_NEEDS_MAKER_H
#define CKF_TEST_NEEDS_MAKER_H

#include <protobuf-c/protobuf-c.h>

/* An image of one record. */
void nm_image(int dir, const char *name, uint32_t magic, const ProtobufCMessage *m);

/* Files 7 (/usr/bin/program), 3 (/work), 5 (/), 4 (unlinked), 9 (/var/log/x), 10
 * (a terminal), 11 (/dev/pts/ptmx); four TCP sockets, two with a connection; three unix sockets,
 * two with peers outside, /run/peer and one without a path. */
void nm_files(int dir);
/* A terminal whose master is not in the dump, others, and three file locks. */
void nm_options(int dir);
/* Works in file 3, below file 5. */
void nm_fs(int dir, uint32_t pid);
void nm_core(int dir, const char *name, uint64_t xstate);
/* The pid namespaces of criu, and of the task pid, which is the root; 0: not known. */
void nm_namespaces(int dir, uint32_t pid, uint32_t criu_pid_ns, uint32_t pid_ns);
/* A CPU, mounts of which one is external, and 20 bytes of unlinked files. */
void nm_machine(int dir);

#endif
