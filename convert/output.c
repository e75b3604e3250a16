/* SPDX-License-Identifier: MIT */
/* Directories and files that are there completely or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_dir.h"
#include "loader/ckf_image.h"
#include "output.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#define TEMP_SUFFIX_BYTES 14 /* ".ckfast-XXXXXX" */
#define TEMP_TRIES 100

/* The directories in a tree, each in the one before. NULL ends them. */
static const char *const tree_dirs[] = { "blobs", "sha256", NULL };
static const char *const no_dirs[] = { NULL };

static const char *const *dirs_of(const struct ckf_output *o)
{
	return o->tree ? tree_dirs : no_dirs;
}

static bool is_own_dir(const char *const *dirs, const char *name)
{
	return *dirs && !strcmp(name, *dirs);
}

struct removal {
	int dir_fd;
	const char *const *dirs; /* that are removed, too */
};

static int remove_dir(int parent_fd, const char *name, const char *mark, const char *const *dirs);

static int remove_name(void *arg, const char *name)
{
	const struct removal *r = arg;

	if (!unlinkat(r->dir_fd, name, 0))
		return 0;
	return errno == EISDIR && is_own_dir(r->dirs, name)
		       ? remove_dir(r->dir_fd, name, NULL, r->dirs + 1)
		       : -errno;
}

/* Removes a directory, the file that makes it what it is first. */
static int remove_dir(int parent_fd, const char *name, const char *mark, const char *const *dirs)
{
	int fd = openat(parent_fd, name, DIR_FLAGS | O_NOFOLLOW), ret = 0;
	struct removal r = { .dir_fd = fd, .dirs = dirs };

	if (fd < 0)
		return -errno;
	if (mark && unlinkat(fd, mark, 0) && errno != ENOENT)
		ret = -errno;
	if (!ret)
		ret = ckf_dir_each(CKF_DIR(fd), remove_name, &r);
	close(fd);
	if (!ret && unlinkat(parent_fd, name, AT_REMOVEDIR))
		ret = -errno;
	return ret;
}

struct look {
	int dir_fd;
	const char *const *dirs; /* that may be in it */
	const char *mark;	 /* NULL: one of the directories in a tree */
	bool has_mark;
	bool has_other; /* what is not of a directory of the kind */
	bool has_any;
};

static int look_at_dir(struct look *l, int parent_fd, const char *name);

static int look_at_name(void *arg, const char *name)
{
	struct look *l = arg;
	struct look inner = { .dirs = l->dirs + 1 };
	struct stat st;
	int ret = 0;

	if (fstatat(l->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	l->has_any = true;
	l->has_mark |= l->mark && !strcmp(name, l->mark);
	if (S_ISDIR(st.st_mode) && is_own_dir(l->dirs, name)) {
		ret = look_at_dir(&inner, l->dir_fd, name);
		l->has_other |= inner.has_other;
	} else if (l->mark) {
		l->has_other |= S_ISDIR(st.st_mode);
	} else {
		/* Files are in the innermost one only. */
		l->has_other |= *l->dirs || !S_ISREG(st.st_mode);
	}
	return ret;
}

static int look_at_dir(struct look *l, int parent_fd, const char *name)
{
	int ret;

	l->dir_fd = openat(parent_fd, name, DIR_FLAGS | O_NOFOLLOW);
	if (l->dir_fd < 0)
		return -errno;
	ret = ckf_dir_each(CKF_DIR(l->dir_fd), look_at_name, l);
	close(l->dir_fd);
	return ret;
}

static const char *kind_of(const struct ckf_output *o)
{
	if (o->tree)
		return "an OCI image layout";
	return strcmp(o->mark, CKF_IDX_NAME) ? "a dump" : "a fast image";
}

/* A directory may be empty, or with force one of the kind that is made. */
static int check_existing_dir(struct ckf_output *o, const char *path, bool force,
			      struct ckf_error *err)
{
	struct look l = { .dirs = dirs_of(o), .mark = o->mark };
	struct statx stx;
	int ret;

	if (statx(o->parent_fd, o->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &stx))
		return ckf_error_set(err, -errno, "cannot stat %s: %s", path, strerror(errno));
	if (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT)
		return ckf_error_set(err, -EBUSY,
				     "%s is a mount point, which cannot be replaced: name a "
				     "directory in it",
				     path);
	ret = look_at_dir(&l, o->parent_fd, o->name);
	if (ret)
		return ckf_error_set(err, ret, "cannot read %s: %s", path, strerror(-ret));
	if (l.has_any && !l.has_mark)
		return ckf_error_set(err, -EEXIST,
				     "%s exists already, and --force would not replace it: it is "
				     "neither empty nor %s, as it holds no %s",
				     path, kind_of(o), o->mark);
	if (l.has_other)
		return ckf_error_set(
			err, -EEXIST,
			"%s exists already, and --force would not replace it: it holds "
			"more than %s does",
			path, kind_of(o));
	if (l.has_any && !force)
		return ckf_error_set(err, -EEXIST, "%s exists already: --force replaces it", path);
	o->replaces = l.has_any;
	o->fills_empty = !l.has_any;
	return 0;
}

/* What is in place already: nothing, or something that may be replaced. */
static int check_existing(struct ckf_output *o, const char *path, bool force, struct ckf_error *err)
{
	struct stat st;

	if (fstatat(o->parent_fd, o->name, &st, AT_SYMLINK_NOFOLLOW)) {
		if (errno == ENOENT)
			return 0;
		return ckf_error_set(err, -errno, "cannot stat %s: %s", path, strerror(errno));
	}
	if (!o->is_file && S_ISDIR(st.st_mode))
		return check_existing_dir(o, path, force, err);
	if (!o->is_file)
		return ckf_error_set(err, -EEXIST, "%s exists already and is not a directory",
				     path);
	if (S_ISDIR(st.st_mode))
		return ckf_error_set(err, -EISDIR,
				     "%s is a directory, but the result is an archive: name a file",
				     path);
	if (!S_ISREG(st.st_mode))
		return ckf_error_set(err, -EEXIST, "%s exists already and is not a regular file",
				     path);
	if (!force)
		return ckf_error_set(err, -EEXIST, "%s exists already: --force replaces it", path);
	o->replaces = true;
	return 0;
}

static int split_path(struct ckf_output *o, const char *path, struct ckf_error *err)
{
	char *copy = strdup(path), *slash;
	size_t len = copy ? strlen(copy) : 0;
	int ret = 0;

	if (!copy)
		return ckf_error_set(err, -ENOMEM, "no memory for a path");
	if (o->is_file && len && copy[len - 1] == '/')
		ret = ckf_error_set(err, -EISDIR,
				    "%s names a directory, but the result is an archive: name a "
				    "file",
				    path);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = strrchr(copy, '/');
	o->path = strdup(copy);
	o->name = strdup(slash ? slash + 1 : copy);
	if (slash)
		slash[slash == copy] = '\0';
	if (!o->name || !o->path)
		ret = ckf_error_set(err, -ENOMEM, "no memory for a path");
	else if (!ret && (!*o->name || !strcmp(o->name, ".") || !strcmp(o->name, "..")))
		ret = ckf_error_set(err, -EINVAL, "%s cannot be made: it has no name of its own",
				    path);
	if (!ret) {
		o->parent_fd = open(slash ? copy : ".", DIR_FLAGS);
		if (o->parent_fd < 0)
			ret = ckf_error_set(err, -errno, "cannot open the directory of %s: %s",
					    path, strerror(errno));
	}
	free(copy);
	return ret;
}

static int create_temp(struct ckf_output *o)
{
	if (!o->is_file)
		return mkdirat(o->parent_fd, o->temp, 0700);
	o->file_fd = openat(o->parent_fd, o->temp,
			    O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return o->file_fd < 0 ? -1 : 0;
}

static int make_temp(struct ckf_output *o, const char *path, struct ckf_error *err)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz012345";
	uint8_t r[6];

	for (int try = 0; try < TEMP_TRIES; try++) {
		if (getrandom(r, sizeof(r), 0) != sizeof(r))
			return ckf_error_set(err, -errno, "getrandom: %s", strerror(errno));
		for (size_t i = 0; i < sizeof(r); i++)
			r[i] = (uint8_t)letters[r[i] % 32];
		snprintf(o->temp, sizeof(o->temp), ".%.*s.ckfast-%.6s",
			 (int)sizeof(o->temp) - 2 - TEMP_SUFFIX_BYTES, o->name, (char *)r);
		if (!create_temp(o)) {
			o->created = true;
			break;
		}
		if (errno != EEXIST)
			break;
	}
	if (!o->created)
		return ckf_error_set(err, -errno, "cannot make a %s beside %s: %s",
				     o->is_file ? "file" : "directory", path, strerror(errno));
	if (o->is_file) {
		ckf_access_drop_acls(o->file_fd);
		return 0;
	}
	o->dir_fd = openat(o->parent_fd, o->temp, DIR_FLAGS | O_NOFOLLOW);
	if (o->dir_fd < 0)
		return ckf_error_set(err, -errno, "cannot open %s: %s", o->temp, strerror(errno));
	ckf_access_drop_acls(o->dir_fd);
	return 0;
}

static void output_init(struct ckf_output *o, const char *mark, const char *old_mark)
{
	memset(o, 0, sizeof(*o));
	o->parent_fd = -1;
	o->dir_fd = -1;
	o->file_fd = -1;
	o->mark = mark;
	o->old_mark = old_mark;
}

/* What o says: a directory or a file, for path. */
static int open_new(struct ckf_output *o, const char *path, bool force, struct ckf_error *err)
{
	int ret = split_path(o, path, err);

	if (!ret)
		ret = check_existing(o, path, force, err);
	if (!ret)
		ret = make_temp(o, path, err);
	if (ret)
		ckf_output_close(o, NULL, NULL);
	return ret;
}

int ckf_output_open(struct ckf_output *o, const char *path, const char *mark, bool force,
		    struct ckf_error *err)
{
	output_init(o, mark, mark);
	return open_new(o, path, force, err);
}

int ckf_output_open_tree(struct ckf_output *o, const char *path, const char *mark, bool force,
			 struct ckf_error *err)
{
	output_init(o, mark, mark);
	o->tree = true;
	return open_new(o, path, force, err);
}

int ckf_output_open_file(struct ckf_output *o, const char *path, bool force, struct ckf_error *err)
{
	output_init(o, NULL, NULL);
	o->is_file = true;
	return open_new(o, path, force, err);
}

/* What is written: the directory, or the file. */
static int own_fd(const struct ckf_output *o)
{
	return o->is_file ? o->file_fd : o->dir_fd;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

int ckf_in_place_init(struct ckf_in_place *in, const char *path, int dir_fd, const char *mark,
		      struct ckf_error *err)
{
	*in = (struct ckf_in_place){ .path = path, .mark = mark, .dir_fd = dir_fd };
	if (fstat(dir_fd, &in->st))
		return ckf_error_set(err, -errno, "cannot stat %s: %s", path, strerror(errno));
	return 0;
}

/* Before all the work: a mount point has no name that could be exchanged. */
static int check_replaceable(const struct ckf_output *o, struct ckf_error *err)
{
	const struct ckf_in_place *in = o->in_place;
	struct statx stx;
	struct stat st;

	if (fstatat(o->parent_fd, o->name, &st, AT_SYMLINK_NOFOLLOW) ||
	    statx(in->dir_fd, "", AT_EMPTY_PATH, 0, &stx))
		return ckf_error_set(err, -errno, "cannot stat %s: %s", in->path, strerror(errno));
	if (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT)
		return ckf_error_set(err, -EBUSY,
				     "%s is a mount point: it cannot be replaced in place",
				     in->path);
	if (!same_file(&st, &in->st))
		return ckf_error_set(err, -EAGAIN, "%s has become another one", in->path);
	return 0;
}

/* Keeps a second one from the work. File systems without locks do without: the second one fails at
 * its end. */
static int lock_in_place(const struct ckf_in_place *in, struct ckf_error *err)
{
	if (flock(in->dir_fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
		return ckf_error_set(err, -EBUSY, "another process is replacing %s in place",
				     in->path);
	return 0;
}

static int open_in_place(struct ckf_output *o, const struct ckf_in_place *in, struct ckf_error *err)
{
	char *real = realpath(in->path, NULL);
	int ret = 0;

	o->in_place = in;
	o->replaces = true;
	if (!real)
		ret = ckf_error_set(err, -errno, "cannot find the place of %s: %s", in->path,
				    strerror(errno));
	if (!ret)
		ret = split_path(o, real, err);
	if (!ret)
		ret = check_replaceable(o, err);
	if (!ret)
		ret = lock_in_place(in, err);
	if (!ret)
		ret = make_temp(o, in->path, err);
	if (!ret)
		ret = ckf_output_like_dir(o, in->dir_fd, err);
	if (!ret)
		ret = ckf_access_copy_labels(in->dir_fd, own_fd(o), err);
	free(real);
	if (ret)
		ckf_output_close(o, NULL, NULL);
	return ret;
}

int ckf_output_open_in_place(struct ckf_output *o, const struct ckf_in_place *in, const char *mark,
			     struct ckf_error *err)
{
	output_init(o, mark, in->mark);
	return open_in_place(o, in, err);
}

int ckf_output_open_tree_in_place(struct ckf_output *o, const struct ckf_in_place *in,
				  struct ckf_error *err)
{
	output_init(o, in->mark, in->mark);
	o->tree = true;
	return open_in_place(o, in, err);
}

int ckf_output_open_file_in_place(struct ckf_output *o, const struct ckf_in_place *in,
				  struct ckf_error *err)
{
	output_init(o, NULL, NULL);
	o->is_file = true;
	return open_in_place(o, in, err);
}

struct keep {
	struct ckf_output *o;
	bool (*is_replaced)(void *arg, const char *name);
	void *arg;
	struct ckf_error *err;
};

static int keep_name(void *arg, const char *name)
{
	const struct keep *k = arg;
	const int dir_fd = k->o->in_place->dir_fd;
	struct stat st;
	int ret = 0;

	if (k->is_replaced(k->arg, name))
		return 0;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		ret = -errno;
	else if (S_ISDIR(st.st_mode))
		return ckf_error_set(k->err, -EOPNOTSUPP,
				     "%s is a directory, which cannot be kept in place", name);
	else if (linkat(dir_fd, name, k->o->dir_fd, name, 0))
		ret = -errno;
	return ret ? ckf_error_set(k->err, ret, "cannot keep %s: %s", name, strerror(-ret)) : 0;
}

int ckf_output_keep_others(struct ckf_output *o, bool (*is_replaced)(void *arg, const char *name),
			   void *arg, struct ckf_error *err)
{
	struct keep k = { o, is_replaced, arg, err };
	int ret = ckf_dir_each(CKF_DIR(o->in_place->dir_fd), keep_name, &k);

	if (ret)
		ckf_error_set(err, ret, "cannot read %s: %s", o->path, strerror(-ret));
	return ret;
}

/* Goes from a directory to the one above; *top when there is none. */
static int go_up(int *fd, struct stat *st, bool *top)
{
	struct stat up;
	int next = openat(*fd, "..", DIR_FLAGS);

	if (next < 0)
		return -errno;
	close(*fd);
	*fd = next;
	if (fstat(next, &up))
		return -errno;
	*top = same_file(&up, st);
	*st = up;
	return 0;
}

int ckf_output_check_outside(const struct ckf_output *o, int dir_fd, struct ckf_error *err)
{
	struct stat dir, st;
	bool top = false;
	int fd, ret = 0;

	fd = openat(o->parent_fd, ".", DIR_FLAGS);
	if (fd < 0 || fstat(fd, &st) || fstat(dir_fd, &dir))
		ret = -errno;
	while (!ret && !top && !same_file(&st, &dir))
		ret = go_up(&fd, &st, &top);
	if (!ret && !top)
		ret = ckf_error_set(err, -EINVAL, "the destination lies in the source directory");
	if (!ret && !fstatat(o->parent_fd, o->name, &st, 0) && same_file(&st, &dir))
		ret = ckf_error_set(err, -EINVAL, "source and destination are the same directory");
	if (fd >= 0)
		close(fd);
	if (ret)
		ckf_error_set(err, ret, "cannot look at the directories above: %s", strerror(-ret));
	return ret;
}

int ckf_output_create(const struct ckf_output *o, const char *name, struct ckf_error *err)
{
	int fd = openat(o->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return ckf_error_set(err, -errno, "cannot create %s: %s", name, strerror(errno));
	return fd;
}

int ckf_output_finish_file(int fd, const char *name, struct ckf_error *err)
{
	int ret = fsync(fd) ? -errno : 0;

	if (close(fd) && !ret)
		ret = -errno;
	if (ret)
		return ckf_error_set(err, ret, "cannot write %s: %s", name, strerror(-ret));
	return 0;
}

int ckf_output_set_access(struct ckf_output *o, int fd, const char *name,
			  const struct ckf_access *a, struct ckf_error *err)
{
	int ret = ckf_access_set(fd, a, &o->own);

	if (ret)
		return ckf_error_set(err, ret, "cannot set owner and mode of %s: %s", name,
				     strerror(-ret));
	return 0;
}

int ckf_output_like_dir(struct ckf_output *o, int dir_fd, struct ckf_error *err)
{
	int ret = ckf_access_get(dir_fd, &o->dir);

	if (ret)
		return ckf_error_set(err, ret, "cannot stat the source directory: %s",
				     strerror(-ret));
	return 0;
}

static int sync_dir(int fd)
{
	return fsync(fd) ? -errno : 0;
}

static int rename_last(struct ckf_output *o, const char *from, const char *to)
{
	if (!from)
		return 0;
	if (renameat(o->dir_fd, from, o->dir_fd, to))
		return -errno;
	return sync_dir(o->dir_fd);
}

/* Its maker can work in the directory up to the end, whatever the mode says then. */
static int set_dir_access(struct ckf_output *o, uint32_t more)
{
	struct ckf_access a = o->dir;

	a.mode |= more;
	return a.known ? ckf_access_set(own_fd(o), &a, &o->own) : 0;
}

/*
 * Gives the directory its name, which nothing may have but a directory that was empty, and still
 * is: rename() itself replaces no other. What fails later takes it away again.
 */
static int move_in(struct ckf_output *o)
{
	struct stat st;

	if (o->fills_empty) {
		if (renameat(o->parent_fd, o->temp, o->parent_fd, o->name))
			return -errno;
	} else if (renameat2(o->parent_fd, o->temp, o->parent_fd, o->name, RENAME_NOREPLACE)) {
		/* A file system without the flag: rename() itself replaces nothing but an empty
		 * directory. */
		if (errno != EINVAL)
			return -errno;
		if (!fstatat(o->parent_fd, o->name, &st, AT_SYMLINK_NOFOLLOW))
			return -EEXIST;
		if (renameat(o->parent_fd, o->temp, o->parent_fd, o->name))
			return -errno;
	}
	snprintf(o->temp, sizeof(o->temp), "%s", o->name);
	return 0;
}

/* Gives the directory the name of the one that is there, and that one the temporary name. */
static int exchange(struct ckf_output *o)
{
	if (renameat2(o->parent_fd, o->temp, o->parent_fd, o->name, RENAME_EXCHANGE))
		return -errno;
	o->exchanged = true;
	return 0;
}

static int place_error(const struct ckf_output *o, int ret, struct ckf_error *err)
{
	return ckf_error_set(err, ret, "cannot put %s into its place: %s", o->name, strerror(-ret));
}

int ckf_output_seal(struct ckf_output *o, const char *last_from, const char *last_to,
		    struct ckf_error *err)
{
	int ret = set_dir_access(o, o->is_file ? 0 : S_IRWXU);

	if (!ret)
		ret = sync_dir(own_fd(o));
	if (!ret)
		ret = rename_last(o, last_from, last_to);
	return ret ? place_error(o, ret, err) : 0;
}

static bool same_time(const struct stat *a, const struct stat *b)
{
	return a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Gives the directory what the one has that it is made from. */
static int look_the_same(struct ckf_output *o, struct ckf_error *err)
{
	const struct ckf_in_place *in = o->in_place;
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, in->st.st_mtim };
	struct stat st;
	int ret;

	if (fstat(in->dir_fd, &st))
		return place_error(o, -errno, err);
	if (!same_time(&st, &in->st))
		return ckf_error_set(err, -EAGAIN, "%s changed while it was read", o->name);
	ret = set_dir_access(o, 0);
	if (!ret && o->own)
		return ckf_error_set(err, -EPERM, "the owners of %s cannot be kept", o->name);
	if (!ret)
		ret = ckf_access_copy_acls(in->dir_fd, own_fd(o), err);
	if (!ret && (futimens(own_fd(o), times) || fsync(own_fd(o))))
		ret = -errno;
	return ret ? place_error(o, ret, err) : 0;
}

/* Puts the directory into the place of the one that it is made from, and of no other. */
static int exchange_in_place(struct ckf_output *o, struct ckf_error *err)
{
	struct stat st;
	int ret = look_the_same(o, err);

	if (ret)
		return ret;
	ret = exchange(o);
	if (ret)
		return place_error(o, ret, err);
	if (fstatat(o->parent_fd, o->temp, &st, AT_SYMLINK_NOFOLLOW))
		ret = place_error(o, -errno, err);
	else if (!same_file(&st, &o->in_place->st))
		ret = ckf_error_set(err, -EAGAIN, "%s has become another one", o->path);
	else if (!same_time(&st, &o->in_place->st))
		ret = ckf_error_set(err, -EAGAIN, "%s changed while it was replaced", o->name);
	if (ret) {
		/* Where that cannot be undone, nothing is removed. */
		o->created = !exchange(o);
		o->exchanged = false;
		return ret;
	}
	ret = sync_dir(o->parent_fd);
	if (!ret)
		return 0;
	/* After a crash, either may have the name: both stay. */
	o->created = false;
	return ckf_error_set(err, ret, "cannot write the directory of %s, and so %s is kept: %s",
			     o->name, o->temp, strerror(-ret));
}

int ckf_output_commit(struct ckf_output *o, struct ckf_error *err)
{
	int ret;

	if (o->in_place)
		return exchange_in_place(o, err);
	ret = o->replaces ? exchange(o) : move_in(o);
	if (!ret)
		ret = sync_dir(o->parent_fd);
	if (!ret && !o->is_file && (o->dir.mode & S_IRWXU) != S_IRWXU)
		ret = set_dir_access(o, 0);
	if (!ret && !o->replaces)
		o->created = false;
	return ret ? place_error(o, ret, err) : 0;
}

void ckf_output_close(struct ckf_output *o, void (*warn)(void *arg, const char *msg), void *arg)
{
	char msg[sizeof(o->temp) + 128];
	int ret = 0;

	if (o->created && o->is_file)
		ret = unlinkat(o->parent_fd, o->temp, 0) ? -errno : 0;
	else if (o->created)
		ret = remove_dir(o->parent_fd, o->temp, o->exchanged ? o->old_mark : o->mark,
				 dirs_of(o));
	if (ret && o->exchanged && warn) {
		snprintf(msg, sizeof(msg), "cannot remove what was there before, now called %s: %s",
			 o->temp, strerror(-ret));
		warn(arg, msg);
	}
	o->created = false;
	if (o->dir_fd >= 0)
		close(o->dir_fd);
	if (o->file_fd >= 0)
		close(o->file_fd);
	if (o->parent_fd >= 0)
		close(o->parent_fd);
	free(o->path);
	free(o->name);
	o->path = NULL;
	o->name = NULL;
	o->dir_fd = -1;
	o->file_fd = -1;
	o->parent_fd = -1;
}
