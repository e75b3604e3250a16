/* SPDX-License-Identifier: MIT */
/*
 * Copies to pages that are not there yet, many in one system call.
 *
 * Writing to such a page from user space costs a fault each, and the first access to a page through
 * the user's page tables may cost as much again in a virtual machine. process_vm_writev() to
 * oneself has the kernel allocate, map and write the pages without either: measured on a machine
 * with slow faults, 1.5 us for a page in place of 15.
 *
 * Pages of a file in memory are written to the file: they need not be mapped here, nor cleared
 * before. But only one thread can do so at a time.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "copy.h"

int fill_copy_add(struct fill_copy *c, char *dst, const char *src, uint64_t bytes)
{
	int ret;

	if (c->file > 0) {
		if (!ckf_pwrite_all(c->file, src, bytes, (uint64_t)(dst - c->file_at)))
			return 0;
		c->file = 0; /* not every file can be written so */
	}
	if (c->nr_src == FILL_COPY_IOVS || c->nr_dst == FILL_COPY_IOVS) {
		ret = fill_copy_flush(c);
		if (ret)
			return ret;
	}
	fill_add_iov(c->src, &c->nr_src, (char *)(uintptr_t)src, bytes);
	fill_add_iov(c->dst, &c->nr_dst, dst, bytes);
	c->bytes += bytes;
	return 0;
}

/* Leaves out the first bytes of v[0..n). */
static void skip(struct iovec *v, unsigned int n, uint64_t bytes)
{
	for (unsigned int i = 0; i < n && bytes; i++) {
		uint64_t part = bytes < v[i].iov_len ? bytes : v[i].iov_len;

		v[i].iov_base = (char *)v[i].iov_base + part;
		v[i].iov_len -= part;
		bytes -= part;
	}
}

/* Where the kernel was built without the call. */
static void copy_plainly(struct fill_copy *c)
{
	unsigned int s = 0, d = 0;

	while (d < c->nr_dst) {
		size_t part = c->src[s].iov_len < c->dst[d].iov_len ? c->src[s].iov_len
								    : c->dst[d].iov_len;

		memcpy(c->dst[d].iov_base, c->src[s].iov_base, part);
		skip(&c->src[s], 1, part);
		skip(&c->dst[d], 1, part);
		s += !c->src[s].iov_len;
		d += !c->dst[d].iov_len;
	}
}

int fill_copy_flush(struct fill_copy *c)
{
	ssize_t done;
	int ret = 0;

	while (c->bytes && !ret) {
		done = process_vm_writev(getpid(), c->src, c->nr_src, c->dst, c->nr_dst, 0);
		if (done < 0 && (errno == ENOSYS || errno == EPERM)) {
			copy_plainly(c);
			break;
		}
		if (done <= 0) {
			ret = done ? -errno : -EFAULT;
			break;
		}
		skip(c->src, c->nr_src, (uint64_t)done);
		skip(c->dst, c->nr_dst, (uint64_t)done);
		c->bytes -= (uint64_t)done;
	}
	c->nr_src = 0;
	c->nr_dst = 0;
	c->bytes = 0;
	return ret;
}
