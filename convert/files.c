/* SPDX-License-Identifier: MIT */
/* Lists a dump directory and copies files, with a checksum of what was copied. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/ckf_sum.h"
#include "base/ckf_io_util.h"
#include "base/ckf_opts.h"
#include "loader/ckf_read.h"
#include "files.h"
#include "img.h"
#include "user.h"

#define COPY_BYTES (1u << 20)

int ckf_opts_get(const struct ckf_convert_opts *user, struct ckf_convert_opts *out,
		 struct ckf_error *err)
{
	*out = (struct ckf_convert_opts){ .size = sizeof(*out), .codec = CKF_CODEC_AUTO };
	if (!user)
		return 0;
	return CKF_OPTS_TAKE(ckf_convert_opts, out, user, codec, err);
}

static void free_file(struct ckf_file *f)
{
	free((char *)f->name);
	free((char *)f->target);
}

static int read_link(int dir_fd, struct ckf_file *f, struct ckf_error *err)
{
	char target[CKF_MAX_LINK_BYTES + 2];
	ssize_t n = readlinkat(dir_fd, f->name, target, sizeof(target) - 1);

	if (n < 0)
		return ckf_error_set(err, -errno, "cannot read link %s: %s", f->name,
				     strerror(errno));
	if (!n || n > CKF_MAX_LINK_BYTES)
		return ckf_error_set(err, -EOPNOTSUPP, "the target of link %s has %zd bytes",
				     f->name, n);
	target[n] = '\0';
	f->target = strdup(target);
	f->size_bytes = (uint64_t)n;
	return f->target ? 0 : -ENOMEM;
}

static const char *type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "a directory";
	case S_IFIFO:
		return "a FIFO";
	case S_IFSOCK:
		return "a socket";
	default:
		return "a device";
	}
}

/* CRIU opens images through links, wherever these lead. */
static bool leads_to_file(int dir_fd, const char *name, struct stat *st)
{
	return ckf_is_img_name(name) && !fstatat(dir_fd, name, st, 0) && S_ISREG(st->st_mode);
}

static int add_odd(struct ckf_file_list *l, const char *name, mode_t type)
{
	int ret = ckf_array_grow(&l->odd, l->nr_odd, &l->cap_odd, sizeof(*l->odd));
	struct ckf_odd_entry *e;

	if (ret)
		return ret;
	e = &l->odd[l->nr_odd];
	e->type = type;
	e->name = strdup(name);
	if (!e->name)
		return -ENOMEM;
	l->nr_odd++;
	return 0;
}

/* 1 when the file goes into the image, 0 when it is left out, or -errno. */
static int describe(int dir_fd, struct ckf_file_list *l, struct ckf_file *f, struct ckf_error *err)
{
	struct stat st, target;
	int ret = 0;

	if (fstatat(dir_fd, f->name, &st, AT_SYMLINK_NOFOLLOW))
		return ckf_error_set(err, -errno, "cannot stat %s: %s", f->name, strerror(errno));
	if (S_ISLNK(st.st_mode) && leads_to_file(dir_fd, f->name, &target)) {
		ret = add_odd(l, f->name, S_IFLNK);
		st = target;
	}
	f->mtime_sec = st.st_mtim.tv_sec;
	f->mtime_nsec = (uint32_t)st.st_mtim.tv_nsec;
	f->mode = st.st_mode & 07777;
	f->uid = st.st_uid;
	f->gid = st.st_gid;
	if (S_ISREG(st.st_mode)) {
		f->kind = CKF_FILE_VERBATIM;
		f->size_bytes = (uint64_t)st.st_size;
	} else if (S_ISLNK(st.st_mode)) {
		f->kind = CKF_FILE_SYMLINK;
		ret = read_link(dir_fd, f, err);
	} else {
		return add_odd(l, f->name, st.st_mode & S_IFMT);
	}
	return ret ? ret : 1;
}

/* Names that files of an image have: those are of an older image, or of a conversion that was
 * killed. */
bool ckf_is_own_name(const char *name)
{
	return !ckf_name_ok(name, strlen(name)) || !strcmp(name, CKF_IDX_PARTIAL_NAME) ||
	       !strcmp(name, CKF_REMOVED_NAME);
}

/* All that archives have here are regular files. */
static int describe_member(const struct ckf_member *m, struct ckf_file *f)
{
	f->kind = CKF_FILE_VERBATIM;
	f->size_bytes = m->bytes;
	f->mtime_sec = m->mtime_sec;
	f->mtime_nsec = m->mtime_nsec;
	f->mode = m->mode;
	f->uid = m->uid;
	f->gid = m->gid;
	return 1;
}

struct list_walk {
	const struct ckf_dir *dir;
	struct ckf_file_list *list;
	struct ckf_error *err;
};

static int add_entry(void *arg, const char *name)
{
	const struct list_walk *w = arg;
	struct ckf_file_list *l = w->list;
	struct ckf_file *f;
	int ret;

	if (ckf_is_own_name(name)) {
		l->has_own = true;
		return 0;
	}
	ret = ckf_array_grow(&l->files, l->nr_files, &l->cap, sizeof(*l->files));
	if (ret)
		return ret;
	f = &l->files[l->nr_files];
	memset(f, 0, sizeof(*f));
	f->name = strdup(name);
	if (!f->name)
		return -ENOMEM;
	if (w->dir->members)
		ret = describe_member(ckf_members_find(w->dir->members, name), f);
	else
		ret = describe(w->dir->fd, l, f, w->err);
	if (ret > 0) {
		l->nr_files++;
		return 0;
	}
	l->nr_left_out++;
	free_file(f);
	return ret;
}

static int compare_file(const void *a, const void *b)
{
	const struct ckf_file *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int compare_odd(const void *a, const void *b)
{
	const struct ckf_odd_entry *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int ckf_file_list_read(const struct ckf_dir *dir, struct ckf_file_list *out, struct ckf_error *err)
{
	struct list_walk w = { dir, out, err };
	int ret;

	memset(out, 0, sizeof(*out));
	ret = ckf_dir_each(dir, add_entry, &w);
	if (ret) {
		ckf_error_set(err, ret, "cannot read the directory: %s", strerror(-ret));
		ckf_file_list_free(out);
		return ret;
	}
	if (out->nr_files)
		qsort(out->files, (size_t)out->nr_files, sizeof(*out->files), compare_file);
	if (out->nr_odd)
		qsort(out->odd, (size_t)out->nr_odd, sizeof(*out->odd), compare_odd);
	return 0;
}

void ckf_file_list_free(struct ckf_file_list *l)
{
	for (uint64_t i = 0; i < l->nr_files; i++)
		free_file(&l->files[i]);
	for (uint64_t i = 0; i < l->nr_odd; i++)
		free(l->odd[i].name);
	free(l->files);
	free(l->odd);
	memset(l, 0, sizeof(*l));
}

void ckf_file_list_warn(const struct ckf_file_list *l, const struct ckf_convert_opts *opts)
{
	for (uint64_t i = 0; i < l->nr_odd; i++) {
		const struct ckf_odd_entry *e = &l->odd[i];

		if (S_ISLNK(e->type))
			ckf_warn(opts, "%s is a symbolic link: the file that it leads to is taken",
				 e->name);
		else
			ckf_warn(opts, "%s is %s: left out", e->name, type_name(e->type));
	}
}

int ckf_file_list_check(const struct ckf_file_list *l, struct ckf_error *err)
{
	for (uint64_t i = 0; i < l->nr_odd; i++) {
		const struct ckf_odd_entry *e = &l->odd[i];

		if (!S_ISLNK(e->type) && ckf_is_img_name(e->name) &&
		    strncmp(e->name, "pagemap-", 8) != 0 && strncmp(e->name, "pages-", 6) != 0)
			return ckf_error_set(err, -EOPNOTSUPP,
					     "%s is not a regular file, but %s; CRIU reads images",
					     e->name, type_name(e->type));
	}
	return 0;
}

bool ckf_file_list_has_odd(const struct ckf_file_list *l, const char *name)
{
	struct ckf_odd_entry key = { .name = (char *)name };
	const struct ckf_odd_entry *e;

	if (!l->nr_odd)
		return false;
	e = bsearch(&key, l->odd, (size_t)l->nr_odd, sizeof(*l->odd), compare_odd);
	return e && !S_ISLNK(e->type);
}

void ckf_file_list_drop_stale(struct ckf_file_list *l,
			      bool (*is_stale)(const void *arg, const char *name), const void *arg)
{
	uint64_t nr = 0;

	for (uint64_t i = 0; i < l->nr_files; i++) {
		if (is_stale(arg, l->files[i].name))
			free_file(&l->files[i]);
		else
			l->files[nr++] = l->files[i];
	}
	l->nr_left_out += l->nr_files - nr;
	l->nr_stale += l->nr_files - nr;
	l->nr_files = nr;
}

int64_t ckf_file_list_find(const struct ckf_file_list *l, const char *name)
{
	struct ckf_file key = { .name = name };
	struct ckf_file *f;

	if (!l->nr_files)
		return -1;
	f = bsearch(&key, l->files, (size_t)l->nr_files, sizeof(*l->files), compare_file);
	return f ? f - l->files : -1;
}

bool ckf_file_unchanged(const struct ckf_file *f, const struct stat *st)
{
	uint64_t size = (uint64_t)st->st_size;

	if (f->kind == CKF_FILE_PAGES) /* of whole pages only */
		size -= size % CKF_PAGE_BYTES;
	return S_ISREG(st->st_mode) && size == f->size_bytes &&
	       st->st_mtim.tv_sec == f->mtime_sec && (uint32_t)st->st_mtim.tv_nsec == f->mtime_nsec;
}

static int copy_data(const struct ckf_copy *c, const struct ckf_convert_opts *opts, uint8_t *buf,
		     struct ckf_sum *sum, struct ckf_error *err)
{
	uint64_t off = 0;
	size_t want = COPY_BYTES;
	ssize_t n;
	int ret;

	for (;;) {
		ret = ckf_user_stop(opts, err);
		if (ret)
			return ret;
		/* What follows it in an archive is another file. */
		if (c->src.member && c->src.bytes - off < want)
			want = (size_t)(c->src.bytes - off);
		n = pread(c->src.fd, buf, want, (off_t)(c->src.off + off));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return ckf_error_set(err, -errno, "cannot read %s: %s", c->name,
					     strerror(errno));
		if (!n || off + (uint64_t)n > c->want_bytes)
			break;
		ckf_sum_update(sum, buf, (size_t)n);
		ret = c->dst_fd < 0 ? 0 : ckf_pwrite_all(c->dst_fd, buf, (size_t)n, off);
		if (ret)
			return ckf_error_set(err, ret, "cannot write %s: %s", c->name,
					     strerror(-ret));
		off += (uint64_t)n;
	}
	if (n || off != c->want_bytes)
		return ckf_error_set(err, -EBADMSG, "%s changed its size while it was read",
				     c->name);
	return 0;
}

int ckf_copy_file(const struct ckf_copy *c, const struct ckf_convert_opts *opts, uint64_t *checksum,
		  struct ckf_error *err)
{
	struct ckf_sum *sum = ckf_sum_new();
	uint8_t *buf = malloc(COPY_BYTES);
	int ret;

	if (sum && buf)
		ret = copy_data(c, opts, buf, sum, err);
	else
		ret = ckf_error_set(err, -ENOMEM, "no memory to copy %s", c->name);
	if (!ret)
		*checksum = ckf_sum_value(sum);
	ckf_sum_free(sum);
	free(buf);
	return ret;
}

static int write_idx_file(struct ckf_output *o, const void *buf, size_t bytes,
			  struct ckf_error *err)
{
	int fd, ret;

	fd = ckf_output_create(o, CKF_IDX_PARTIAL_NAME, err);
	if (fd < 0)
		return fd;
	ret = ckf_pwrite_all(fd, buf, bytes, 0);
	if (ret) {
		close(fd);
		return ckf_error_set(err, ret, "cannot write %s: %s", CKF_IDX_NAME, strerror(-ret));
	}
	return ckf_finish_memory_file(o, fd, CKF_IDX_NAME, err);
}

int ckf_finish_pack(int pack_fd, uint64_t start, const struct ckf_index *idx, struct ckf_error *err)
{
	struct ckf_disk_pack_header h;
	int ret;

	ckf_pack_header_encode(idx, &h);
	ret = ckf_pwrite_all(pack_fd, &h, sizeof(h), start);
	if (!ret && ftruncate(pack_fd, (off_t)(start + idx->pack_bytes)))
		ret = -errno;
	if (ret)
		ckf_error_set(err, ret, "cannot write %s: %s", CKF_PACK_NAME, strerror(-ret));
	return ret;
}

int ckf_write_index(struct ckf_output *o, struct ckf_index *idx, int pack_fd, uint64_t *idx_bytes,
		    struct ckf_error *err)
{
	void *buf = NULL;
	size_t bytes;
	int ret;

	ret = ckf_index_encode(idx, &buf, &bytes, err);
	if (!ret)
		ret = write_idx_file(o, buf, bytes, err);
	free(buf);
	if (ret)
		return ret;
	*idx_bytes = bytes;
	return ckf_finish_pack(pack_fd, 0, idx, err);
}

int ckf_open_source(const char *fast, const struct ckf_convert_opts *opts, struct ckf_image **img,
		    struct ckf_error *err)
{
	const struct ckf_image_opts o = {
		.size = sizeof(o),
		.base_dirs = opts->bases,
		.nr_base_dirs = opts->nr_bases,
	};
	int fd, ret;

	fd = open(fast, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return ckf_error_set(err, -errno, "cannot open directory %s: %s", fast,
				     strerror(errno));
	ret = ckf_image_open_opts(fd, &o, img, err);
	close(fd);
	return ret;
}

int ckf_check_outside(const struct ckf_image *img, const struct ckf_output *o,
		      struct ckf_error *err)
{
	int ret = ckf_output_check_outside(o, img->dir_fd, err);

	for (uint32_t n = 1; n <= img->idx->nr_bases && !ret; n++) {
		int fd = ckf_image_open_base_dir(img, n, err);

		if (fd < 0)
			return fd;
		ret = ckf_output_check_outside(o, fd, err);
		close(fd);
	}
	return ret;
}

int ckf_check_sum(const struct ckf_image *img, const struct ckf_file *f, uint64_t got,
		  struct ckf_error *err)
{
	if (got == f->checksum)
		return 0;
	return ckf_error_rule(err, -EBADMSG, "files", f - img->idx->files, 0,
			      "wrong checksum of %s, got %016llx, want %016llx%s", f->name,
			      (unsigned long long)got, (unsigned long long)f->checksum,
			      ckf_image_stale_hint(img));
}

/* The length is what the file has now: another than the index says only if it is unread. */
static int open_verbatim(const struct ckf_image *img, const struct ckf_file *f,
			 struct ckf_file_part *out, const struct ckf_convert_opts *opts,
			 struct ckf_error *err)
{
	struct ckf_error why = { 0 };
	int fd;

	if (!ckf_file_is_unread(f))
		return ckf_image_open_file(img, f, out, err);
	*out = (struct ckf_file_part){ 0 };
	fd = ckf_image_open_regular(img->dir_fd, f->name, 0, &out->bytes, &why);
	out->fd = fd;
	if (fd == -ENOENT || fd == -EBADMSG) {
		ckf_warn(opts, "%s is %s, which CRIU does not read: left out", f->name,
			 fd == -ENOENT ? "gone" : "no regular file any more");
		return CKF_LEFT_OUT;
	}
	return fd < 0 ? ckf_error_set(err, fd, "%s", why.msg) : 0;
}

int ckf_copy_verbatim(const struct ckf_image *img, const struct ckf_output *o,
		      const struct ckf_file *f, const struct ckf_convert_opts *opts,
		      struct ckf_error *err)
{
	struct ckf_copy copy = { .name = f->name };
	uint64_t sum;
	int ret;

	ret = open_verbatim(img, f, &copy.src, opts, err);
	if (ret)
		return ret;
	copy.want_bytes = copy.src.bytes;
	copy.dst_fd = ckf_output_create(o, f->name, err);
	ret = copy.dst_fd;
	if (ret >= 0)
		ret = ckf_copy_file(&copy, opts, &sum, err);
	if (!ret && !ckf_file_is_unread(f))
		ret = ckf_check_sum(img, f, sum, err);
	else if (!ret && (sum != f->checksum || copy.want_bytes != f->size_bytes))
		ckf_warn(opts, "%s, which CRIU does not read, has changed since: copied as it is",
			 f->name);
	close(copy.src.fd);
	if (ret && copy.dst_fd >= 0)
		close(copy.dst_fd);
	return ret ? ret : copy.dst_fd;
}

/* Who converts must be able to read what is written; the bits for programs mean nothing there. */
static int finish_file(struct ckf_output *o, int fd, const char *name, struct ckf_access a,
		       struct ckf_error *err)
{
	int ret;

	a.mode = (a.mode & 0777) | S_IRUSR;
	ret = ckf_output_set_access(o, fd, name, &a, err);
	if (!ret)
		return ckf_output_finish_file(fd, name, err);
	close(fd);
	return ret;
}

int ckf_finish_image_file(struct ckf_output *o, int fd, const struct ckf_file *f,
			  struct ckf_error *err)
{
	return finish_file(o, fd, f->name, ckf_file_access(f), err);
}

int ckf_finish_memory_file(struct ckf_output *o, int fd, const char *name, struct ckf_error *err)
{
	return finish_file(o, fd, name, o->memory, err);
}

void ckf_warn(const struct ckf_convert_opts *opts, const char *fmt, ...)
{
	char msg[CKF_ERROR_MSG_BYTES];
	va_list ap;

	if (!opts->warn)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	opts->warn(opts->arg, msg);
}

int ckf_finish_output(struct ckf_output *o, int ret, const struct ckf_convert_opts *opts,
		      struct ckf_error *err)
{
	if (!ret)
		ret = ckf_output_commit(o, err);
	if (!ret && o->own)
		ckf_warn(opts,
			 "without the right to set owners: files are your own, and groups may do "
			 "what all others may");
	ckf_output_close(o, opts->warn, opts->arg);
	return ret;
}
