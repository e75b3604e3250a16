/* SPDX-License-Identifier: MIT */
/*
 * What a dump needs of a machine: terminals that are on the machine already.
 *
 * CRIU makes a pseudoterminal anew where a task has its master. The slave end of any other is one
 * that criu restore was started on.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/ckf_table.h"
#include "needs.h"
#include "tty.pb-c.h"

/* CRIU numbers the ends of pseudoterminal n: the slave 2n, the master 2n + 1. */
#define MASTER_BIT 1u

static int add_end(struct ckf_needs *n, uint32_t id, struct ckf_error *err)
{
	if (ckf_array_grow(&n->ttys, n->nr_ttys, &n->ttys_cap, sizeof(*n->ttys)))
		return ckf_error_set(err, -ENOMEM, "no memory for the terminals of the dump");
	n->ttys[n->nr_ttys++] = id;
	return 0;
}

/* One that has hung up has no settings. */
static int take_info(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		     struct ckf_error *err)
{
	TtyInfoEntry *e = tty_info_entry__unpack(&im->alloc, bytes, rec);
	int ret = 0;

	if (!e)
		return ckf_img_bad(im, -EBADMSG, err, "not a tty info entry");
	if (e->type == TTY_TYPE__PTY && e->termios)
		ret = add_end(n, e->id, err);
	tty_info_entry__free_unpacked(e, NULL);
	return ret;
}

static bool has_end(const struct ckf_needs *n, uint32_t id)
{
	return bsearch(&id, n->ttys, (size_t)n->nr_ttys, sizeof(id), ckf_compare_u32);
}

int needs_read_ttys(struct ckf_needs *n, int dir_fd, struct ckf_error *err)
{
	int ret = needs_each_record(n, dir_fd, "tty-info.img", CKF_TTY_INFO_MAGIC, take_info, err);

	if (ret || !n->nr_ttys)
		return ret;
	qsort(n->ttys, (size_t)n->nr_ttys, sizeof(*n->ttys), ckf_compare_u32);
	for (uint64_t i = 0; i < n->nr_ttys; i++)
		if (!(n->ttys[i] & MASTER_BIT) && !has_end(n, n->ttys[i] | MASTER_BIT))
			n->info.nr_outer_ttys++;
	return 0;
}
