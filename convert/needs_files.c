/* SPDX-License-Identifier: MIT */
/* What a dump needs of a machine: files, sockets and mounts. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_dir.h"
#include "needs.h"
#include "fdinfo.pb-c.h"
#include "fs.pb-c.h"
#include "mm.pb-c.h"
#include "mnt.pb-c.h"
#include "remap-file-path.pb-c.h"

#define GHOST_PREFIX "ghost-file-"
#define PTS_DIR "/dev/pts/"
#define MOUNTS_PREFIX "mountpoints-"
#define UNIX_EXTERN (1u << 0) /* USK_EXTERN of CRIU's sk-unix.c */

/* Takes p->path, which is malloc()ed, or NULL where there was no memory for it. */
static int add_path(struct ckf_needs *n, const struct need_path *p, struct ckf_error *err)
{
	if (!p->path ||
	    ckf_array_grow(&n->paths, n->info.nr_paths, &n->paths_cap, sizeof(*n->paths))) {
		free(p->path);
		return ckf_error_set(err, -ENOMEM, "no memory for the files of the dump");
	}
	n->paths[n->info.nr_paths++] = *p;
	return 0;
}

/* A pseudoterminal's slave, which CRIU makes, or has from its caller. */
static bool is_slave_tty(const char *path)
{
	return !strncmp(path, PTS_DIR, strlen(PTS_DIR)) && strcmp(path + strlen(PTS_DIR), "ptmx");
}

static int add_file(struct ckf_needs *n, const RegFileEntry *e, struct ckf_error *err)
{
	const struct need_path p = {
		.path = strdup(e->name),
		.id = e->id,
		.bytes = e->has_size ? e->size : CKF_UNLIMITED,
		.mode = e->has_mode ? e->mode : 0,
		.external = e->has_ext && e->ext,
		.remapped = is_slave_tty(e->name),
	};

	return add_path(n, &p, err);
}

/* The peer of a socket may have a path, or a name that is none. */
static int add_peer(struct ckf_needs *n, const UnixSkEntry *e, struct ckf_error *err)
{
	struct need_path p = {
		.id = e->id,
		.bytes = CKF_UNLIMITED,
		.mode = S_IFSOCK,
		.kind = CKF_PATH_SOCKET,
	};

	n->info.nr_ext_unix++;
	if (!e->name.len || e->name.data[0] != '/')
		return 0;
	p.path = calloc(1, e->name.len + 1);
	if (p.path)
		memcpy(p.path, e->name.data, e->name.len);
	return add_path(n, &p, err);
}

/* One that is neither closed nor only listening. */
static bool has_connection(const InetSkEntry *e)
{
	return e->proto == IPPROTO_TCP && e->state != TCP_CLOSE && e->state != TCP_LISTEN;
}

static int take_file(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		     struct ckf_error *err)
{
	FileEntry *e = file_entry__unpack(&im->alloc, bytes, rec);
	int ret = 0;

	if (!e)
		return ckf_img_bad(im, -EBADMSG, err, "not a file entry");
	if (e->reg)
		ret = add_file(n, e->reg, err);
	else if (e->usk && (e->usk->uflags & UNIX_EXTERN))
		ret = add_peer(n, e->usk, err);
	n->info.nr_tcp += e->isk && has_connection(e->isk);
	file_entry__free_unpacked(e, NULL);
	return ret;
}

static int compare_paths(const void *a, const void *b)
{
	const struct need_path *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

static struct need_path *find_path(const struct ckf_needs *n, uint32_t id)
{
	const struct need_path key = { .id = id };

	return n->info.nr_paths ? bsearch(&key, n->paths, (size_t)n->info.nr_paths,
					  sizeof(*n->paths), compare_paths)
				: NULL;
}

static int take_remap(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		      struct ckf_error *err)
{
	RemapFilePathEntry *e = remap_file_path_entry__unpack(&im->alloc, bytes, rec);
	struct need_path *p;

	if (!e)
		return ckf_img_bad(im, -EBADMSG, err, "not a remap entry");
	p = find_path(n, e->orig_id);
	if (p)
		p->remapped = true;
	remap_file_path_entry__free_unpacked(e, NULL);
	return 0;
}

/* The first task that uses a path for that names it. */
static void note_use(struct ckf_needs *n, uint32_t id, uint32_t kind)
{
	struct need_path *p = find_path(n, id);

	if (!p || p->kind)
		return;
	p->kind = kind;
	p->pid = n->pid;
}

static int take_lock(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		     struct ckf_error *err)
{
	(void)im;
	(void)rec;
	(void)bytes;
	(void)err;
	n->info.nr_file_locks++;
	return 0;
}

static int take_mm(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		   struct ckf_error *err)
{
	MmEntry *mm = mm_entry__unpack(&im->alloc, bytes, rec);

	if (!mm)
		return ckf_img_bad(im, -EBADMSG, err, "not an mm entry");
	note_use(n, mm->exe_file_id, CKF_PATH_EXE);
	mm_entry__free_unpacked(mm, NULL);
	return 0;
}

static int take_fs(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		   struct ckf_error *err)
{
	FsEntry *fs = fs_entry__unpack(&im->alloc, bytes, rec);

	if (!fs)
		return ckf_img_bad(im, -EBADMSG, err, "not an fs entry");
	note_use(n, fs->cwd_id, CKF_PATH_CWD);
	note_use(n, fs->root_id, CKF_PATH_ROOT);
	fs_entry__free_unpacked(fs, NULL);
	return 0;
}

static int take_mount(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		      struct ckf_error *err)
{
	MntEntry *e = mnt_entry__unpack(&im->alloc, bytes, rec);

	if (!e)
		return ckf_img_bad(im, -EBADMSG, err, "not a mount entry");
	n->info.nr_ext_mounts += (e->has_ext_mount && e->ext_mount) || e->ext_key;
	mnt_entry__free_unpacked(e, NULL);
	return 0;
}

static int add_ghost(struct ckf_needs *n, int dir_fd, const char *name, struct ckf_error *err)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, 0))
		return ckf_error_set(err, -errno, "cannot stat %s: %s", name, strerror(errno));
	if (S_ISREG(st.st_mode) &&
	    ckf_add_overflow(n->info.ghost_bytes, (uint64_t)st.st_size, &n->info.ghost_bytes))
		n->info.ghost_bytes = UINT64_MAX;
	return 0;
}

struct listing {
	struct ckf_needs *n;
	int dir_fd;
	struct ckf_error *err;
};

/* Images whose names are known only from the directory. */
static int read_listed(void *arg, const char *name)
{
	const struct listing *l = arg;

	if (!strncmp(name, MOUNTS_PREFIX, strlen(MOUNTS_PREFIX)))
		return needs_each_record(l->n, l->dir_fd, name, CKF_MNTS_MAGIC, take_mount, l->err);
	if (!strncmp(name, GHOST_PREFIX, strlen(GHOST_PREFIX)))
		return add_ghost(l->n, l->dir_fd, name, l->err);
	return 0;
}

/* Those that CRIU makes, or finds under another name, need not be there. */
static void drop_remapped(struct ckf_needs *n)
{
	uint64_t nr = 0;

	for (uint64_t i = 0; i < n->info.nr_paths; i++) {
		if (n->paths[i].remapped)
			free(n->paths[i].path);
		else
			n->paths[nr++] = n->paths[i];
	}
	n->info.nr_paths = nr;
}

static int read_users(struct ckf_needs *n, int dir_fd, const struct ckf_dump *dump,
		      struct ckf_error *err)
{
	char name[32];
	int ret = 0;

	for (uint64_t i = 0; i < dump->nr_tasks && !ret; i++) {
		n->pid = dump->tasks[i].pid;
		snprintf(name, sizeof(name), "mm-%u.img", n->pid);
		ret = needs_each_record(n, dir_fd, name, CKF_MM_MAGIC, take_mm, err);
		snprintf(name, sizeof(name), "fs-%u.img", n->pid);
		if (!ret)
			ret = needs_each_record(n, dir_fd, name, CKF_FS_MAGIC, take_fs, err);
	}
	return ret;
}

int needs_read_files(struct ckf_needs *n, int dir_fd, const struct ckf_dump *dump,
		     struct ckf_error *err)
{
	struct listing l = { n, dir_fd, err };
	int ret;

	ret = needs_each_record(n, dir_fd, "files.img", CKF_FILES_MAGIC, take_file, err);
	if (ret)
		return ret;
	if (n->info.nr_paths)
		qsort(n->paths, (size_t)n->info.nr_paths, sizeof(*n->paths), compare_paths);
	ret = needs_each_record(n, dir_fd, "remap-fpath.img", CKF_REMAP_MAGIC, take_remap, err);
	if (!ret)
		ret = needs_each_record(n, dir_fd, "filelocks.img", CKF_FILE_LOCKS_MAGIC, take_lock,
					err);
	if (!ret)
		ret = read_users(n, dir_fd, dump, err);
	if (ret)
		return ret;
	drop_remapped(n);
	ret = ckf_dir_each(CKF_DIR(dir_fd), read_listed, &l);
	/* Of an error in a record, err tells already: the first one wins. */
	return ret ? ckf_error_set(err, ret, "cannot read the directory: %s", strerror(-ret)) : 0;
}
