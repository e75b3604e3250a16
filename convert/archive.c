/* SPDX-License-Identifier: MIT */
/* Opens a checkpoint archive and finds the files of its checkpoint/. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "archive.h"
#include "files.h"
#include "img.h"

#define CHECKPOINT_PREFIX CKF_CHECKPOINT_DIR "/"
#define LAYOUT_NAME "oci-layout"

/* While the headers are read. */
struct scan {
	struct ckf_archive *a;
	uint64_t cap_members;
	const char *dir; /* of the images: CHECKPOINT_PREFIX or "" */
	bool has_root_image;
	bool has_layout;
	char **others; /* names in that directory of what is no file */
	uint64_t nr_others;
	uint64_t cap_others;
	struct ckf_error *err;
};

bool ckf_archive_probe(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode);
}

/* The name within the directory of the images of what lies in it, or NULL. */
static const char *inner_name(const struct scan *s, const char *name)
{
	const size_t n = strlen(s->dir);

	return strncmp(name, s->dir, n) != 0 || !name[n] ? NULL : name + n;
}

static int unsupported(const struct ckf_tar_entry *e, const char *what, struct ckf_error *err)
{
	return ckf_error_rule(err, -EOPNOTSUPP, "archive", -1, e->start, "%s: %s", e->raw_name,
			      what);
}

static int add_member(struct scan *s, const struct ckf_tar_entry *e, const char *name)
{
	struct ckf_members *all = &s->a->members;
	struct ckf_member *m;

	if (ckf_array_grow(&all->v, all->nr, &s->cap_members, sizeof(*all->v)))
		return ckf_error_set(s->err, -ENOMEM, "no memory for the members");
	m = &all->v[all->nr];
	*m = (struct ckf_member){
		.name = strdup(name),
		.off = e->data_off,
		.bytes = e->bytes,
		.mtime_sec = e->mtime_sec,
		.mtime_nsec = e->mtime_nsec,
		.mode = e->mode,
		.uid = e->uid,
		.gid = e->gid,
	};
	if (!m->name)
		return ckf_error_set(s->err, -ENOMEM, "no memory for the members");
	all->nr++;
	return 0;
}

/* What is no file stays in the archive, and nobody reads it: unless CRIU would. */
static int add_other(struct scan *s, const struct ckf_tar_entry *e, const char *name)
{
	if (s->a->kind == CKF_ARCHIVE_LAYOUT)
		return 0;
	if (!strcmp(name, "parent"))
		return unsupported(e, "an incremental checkpoint needs its parent: unpack both",
				   s->err);
	if (ckf_is_img_name(name) || ckf_is_own_name(name))
		return unsupported(e, "an image that is not a regular file", s->err);
	if (ckf_array_grow(&s->others, s->nr_others, &s->cap_others, sizeof(*s->others)))
		return ckf_error_set(s->err, -ENOMEM, "no memory for the members");
	s->others[s->nr_others] = strdup(name);
	if (!s->others[s->nr_others])
		return ckf_error_set(s->err, -ENOMEM, "no memory for the members");
	s->nr_others++;
	return 0;
}

/* name: in the directory of the images. */
static int add_inner(struct scan *s, const struct ckf_tar_entry *e, const char *name)
{
	struct ckf_archive *a = s->a;
	int ret;

	if (e->sparse)
		return unsupported(e, "a sparse file where the images are", s->err);
	if (strlen(name) > CKF_MAX_NAME_BYTES)
		return unsupported(e, "a name that no directory could hold", s->err);
	if (e->type != CKF_TAR_FILE)
		return add_other(s, e, name);
	ret = add_member(s, e, name);
	if (ret)
		return ret;
	a->entries[a->nr_entries].name = strdup(name);
	if (!a->entries[a->nr_entries].name)
		return ckf_error_set(s->err, -ENOMEM, "no memory for the members");
	if (!a->prefix)
		a->prefix = strndup(e->raw_name, strlen(e->raw_name) - strlen(name));
	return a->prefix ? 0 : ckf_error_set(s->err, -ENOMEM, "no memory for the members");
}

static int add_entry(struct scan *s, const struct ckf_tar_entry *e)
{
	struct ckf_archive *a = s->a;
	const char *name = inner_name(s, e->name);
	int ret;

	if (a->nr_entries == CKF_ARCHIVE_MAX_MEMBERS)
		return ckf_error_set(s->err, -E2BIG, "more than %u members in the archive",
				     CKF_ARCHIVE_MAX_MEMBERS);
	if (ckf_array_grow(&a->entries, a->nr_entries, &a->cap_entries, sizeof(*a->entries)))
		return ckf_error_set(s->err, -ENOMEM, "no memory for the members");
	a->entries[a->nr_entries] = (struct ckf_archive_entry){
		.start = e->start,
		.data_off = e->data_off,
		.end = e->end,
	};
	if (e->type != CKF_TAR_DIR && !strcmp(e->name, CKF_CHECKPOINT_DIR))
		return unsupported(e, "is not a directory", s->err);
	if (e->type == CKF_TAR_HARDLINK && inner_name(s, e->link))
		return unsupported(e, "a hard link to a file where the images are", s->err);
	ret = 0;
	if (name && (a->kind == CKF_ARCHIVE_LAYOUT || !strchr(name, '/')))
		ret = add_inner(s, e, name);
	if (e->type == CKF_TAR_FILE) {
		s->has_root_image |= !strcmp(e->name, CKF_IDX_NAME) ||
				     !strcmp(e->name, "inventory.img");
		s->has_layout |= !strcmp(e->name, LAYOUT_NAME);
	}
	a->nr_entries++;
	return ret;
}

static int compare_member(const void *a, const void *b)
{
	return strcmp(((const struct ckf_member *)a)->name, ((const struct ckf_member *)b)->name);
}

/* Which of two files with one name is meant, readers answer differently. */
static int check_names(struct scan *s)
{
	const struct ckf_members *m = &s->a->members;
	const char *twice = NULL;

	if (m->nr)
		qsort(m->v, (size_t)m->nr, sizeof(*m->v), compare_member);
	for (uint64_t i = 1; i < m->nr && !twice; i++) {
		if (!strcmp(m->v[i].name, m->v[i - 1].name))
			twice = m->v[i].name;
	}
	for (uint64_t i = 0; i < s->nr_others && !twice; i++) {
		if (ckf_members_find(m, s->others[i]))
			twice = s->others[i];
	}
	if (twice)
		return ckf_error_set(s->err, -EBADMSG, "corrupt archive: %s%s is there twice",
				     s->dir, twice);
	return 0;
}

static void drop_others(struct scan *s)
{
	for (uint64_t i = 0; i < s->nr_others; i++)
		free(s->others[i]);
	s->nr_others = 0;
}

static void drop_members(struct ckf_archive *a)
{
	for (uint64_t i = 0; i < a->members.nr; i++)
		free(a->members.v[i].name);
	for (uint64_t i = 0; i < a->nr_entries; i++)
		free(a->entries[i].name);
	a->members.nr = 0;
	a->nr_entries = 0;
}

static int scan_members(struct scan *s)
{
	struct ckf_archive *a = s->a;
	struct ckf_tar t = { .fd = a->dir.fd, .bytes = a->end, .off = a->start };
	struct ckf_tar_entry e;
	int ret;

	drop_members(a);
	drop_others(s);
	s->dir = a->kind == CKF_ARCHIVE_CHECKPOINT ? CHECKPOINT_PREFIX : "";
	while ((ret = ckf_tar_next(&t, &e, s->err)) > 0) {
		ret = add_entry(s, &e);
		ckf_tar_entry_fini(&e);
		if (ret)
			break;
	}
	a->members_end = t.off;
	return ret ? ret : check_names(s);
}

/* An archive without checkpoint/ is read a second time: as what its other members say that it is.
 */
static int find_members(struct ckf_archive *a, struct ckf_error *err)
{
	struct scan s = { .a = a, .err = err };
	int ret = scan_members(&s);

	if (!ret && !a->members.nr && (s.has_root_image || s.has_layout)) {
		a->kind = s.has_root_image ? CKF_ARCHIVE_ROOT : CKF_ARCHIVE_LAYOUT;
		ret = scan_members(&s);
	}
	drop_others(&s);
	free(s.others);
	if (!ret && !a->members.nr)
		ret = ckf_error_set(
			err, -ENOENT,
			"not a checkpoint archive: it has no files in " CHECKPOINT_PREFIX);
	return ret;
}

static int open_plain(struct ckf_archive *a, const char *tmp_dir, struct ckf_error *err)
{
	struct ckf_file_part part = { .fd = a->file_fd, .off = a->start };
	char first[CKF_TAR_BLOCK];
	struct stat st;
	int plain_fd = -1, ret;

	part.bytes = a->end - a->start;
	ret = tmp_dir ? ckf_decompress(&part, tmp_dir, &a->compression, &plain_fd, err) : 0;
	if (ret)
		return ret;
	a->dir.fd = plain_fd >= 0 ? plain_fd : a->file_fd;
	if (plain_fd >= 0) {
		if (fstat(plain_fd, &st))
			return ckf_error_set(err, -errno, "cannot stat the archive: %s",
					     strerror(errno));
		a->start = 0;
		a->end = (uint64_t)st.st_size;
	}
	if (a->end - a->start < sizeof(first))
		ret = -EBADMSG;
	if (!ret)
		ret = ckf_pread_all(a->dir.fd, first, sizeof(first), a->start);
	if (ret && ret != -EBADMSG)
		return ckf_error_set(err, ret, "cannot read the archive: %s", strerror(-ret));
	if (ret || !ckf_tar_is_header(first))
		return ckf_error_set(err, -EBADMSG, "neither a directory nor a tar archive");
	return 0;
}

int ckf_archive_open_part(const struct ckf_file_part *part, const char *tmp_dir,
			  struct ckf_archive **out, struct ckf_error *err)
{
	struct ckf_archive *a = calloc(1, sizeof(*a));
	int ret = 0;

	if (!a)
		return ckf_error_set(err, -ENOMEM, "no memory for an archive");
	a->start = part->off;
	a->end = part->off + part->bytes;
	a->dir = (struct ckf_dir){ .fd = -1, .members = &a->members };
	a->file_fd = fcntl(part->fd, F_DUPFD_CLOEXEC, 0);
	if (a->file_fd < 0 || fstat(a->file_fd, &a->st))
		ret = ckf_error_set(err, -errno, "cannot open the archive: %s", strerror(errno));
	if (!ret)
		ret = open_plain(a, tmp_dir, err);
	if (!ret)
		ret = find_members(a, err);
	if (ret)
		ckf_archive_close(a);
	else
		*out = a;
	return ret;
}

char *ckf_archive_dir_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int ckf_archive_open(const char *path, const char *beside, struct ckf_archive **out,
		     struct ckf_error *err)
{
	char *tmp_dir = ckf_archive_dir_of(beside ? beside : path);
	struct ckf_file_part part = { .fd = -1 };
	struct stat st;
	int ret;

	if (!tmp_dir)
		return ckf_error_set(err, -ENOMEM, "no memory for a path");
	part.fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (part.fd < 0 || fstat(part.fd, &st))
		ret = ckf_error_set(err, -errno, "cannot open: %s", strerror(errno));
	else if (!S_ISREG(st.st_mode))
		ret = ckf_error_set(err, -EINVAL, "neither a directory nor a regular file");
	else {
		part.bytes = (uint64_t)st.st_size;
		ret = ckf_archive_open_part(&part, tmp_dir, out, err);
	}
	if (part.fd >= 0)
		close(part.fd);
	free(tmp_dir);
	return ret;
}

void ckf_archive_close(struct ckf_archive *a)
{
	if (!a)
		return;
	drop_members(a);
	free(a->members.v);
	free(a->entries);
	free(a->prefix);
	if (a->dir.fd >= 0 && a->dir.fd != a->file_fd)
		close(a->dir.fd);
	if (a->file_fd >= 0)
		close(a->file_fd);
	free(a);
}

const struct ckf_dir *ckf_archive_dir(const struct ckf_archive *a)
{
	return &a->dir;
}

bool ckf_archive_is_fast(const struct ckf_archive *a)
{
	return ckf_members_find(&a->members, CKF_IDX_NAME) != NULL;
}
