/* SPDX-License-Identifier: MIT */
/* Images that say what a dump needs of a machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "ckfast_needs.h"
#include "convert/img.h"
#include "core.pb-c.h"
#include "cpuinfo.pb-c.h"
#include "dump_maker.h"
#include "fdinfo.pb-c.h"
#include "fs.pb-c.h"
#include "inventory.pb-c.h"
#include "mnt.pb-c.h"
#include "needs_maker.h"
#include "remap-file-path.pb-c.h"
#include "tty.pb-c.h"

static void nm_put(int fd, const ProtobufCMessage *m)
{
	uint8_t buf[4096];
	size_t bytes = protobuf_c_message_get_packed_size(m);

	assert_true(bytes <= sizeof(buf));
	protobuf_c_message_pack(m, buf);
	dm_record(fd, buf, bytes);
}

void nm_image(int dir, const char *name, uint32_t magic, const ProtobufCMessage *m)
{
	int fd;

	unlinkat(dir, name, 0);
	fd = dm_image(dir, name, magic);
	nm_put(fd, m);
	close(fd);
}

static void put_file(int fd, uint32_t id, const char *name, uint64_t bytes, uint32_t mode)
{
	FileEntry e = FILE_ENTRY__INIT;
	RegFileEntry reg = REG_FILE_ENTRY__INIT;
	FownEntry fown = FOWN_ENTRY__INIT;

	reg.id = id;
	reg.fown = &fown;
	reg.name = (char *)name;
	reg.has_size = bytes != CKF_UNLIMITED;
	reg.size = bytes;
	reg.has_mode = mode != 0;
	reg.mode = mode;
	e.type = FD_TYPES__REG;
	e.id = id;
	e.reg = &reg;
	nm_put(fd, &e.base);
}

static void put_tcp(int fd, uint32_t state)
{
	FileEntry e = FILE_ENTRY__INIT;
	InetSkEntry isk = INET_SK_ENTRY__INIT;
	FownEntry fown = FOWN_ENTRY__INIT;
	SkOptsEntry opts = SK_OPTS_ENTRY__INIT;

	isk.proto = 6;
	isk.state = state;
	isk.fown = &fown;
	isk.opts = &opts;
	e.type = FD_TYPES__INETSK;
	e.isk = &isk;
	nm_put(fd, &e.base);
}

static void put_unix(int fd, uint32_t uflags, const char *name, size_t bytes)
{
	FileEntry e = FILE_ENTRY__INIT;
	UnixSkEntry usk = UNIX_SK_ENTRY__INIT;
	FownEntry fown = FOWN_ENTRY__INIT;
	SkOptsEntry opts = SK_OPTS_ENTRY__INIT;

	usk.id = 20 + uflags;
	usk.uflags = uflags;
	usk.name.data = (uint8_t *)name;
	usk.name.len = bytes;
	usk.fown = &fown;
	usk.opts = &opts;
	e.type = FD_TYPES__UNIXSK;
	e.usk = &usk;
	nm_put(fd, &e.base);
}

void nm_files(int dir)
{
	RemapFilePathEntry remap = REMAP_FILE_PATH_ENTRY__INIT;
	int fd = dm_image(dir, "files.img", CKF_FILES_MAGIC);

	put_file(fd, 7, "/usr/bin/program", 1000, S_IFREG | 0755);
	put_file(fd, 3, "/work", CKF_UNLIMITED, S_IFDIR | 0700);
	put_file(fd, 5, "/", CKF_UNLIMITED, 0);
	put_file(fd, 4, "/tmp/unlinked", 5, S_IFREG | 0600);
	put_file(fd, 9, "/var/log/x", 77, S_IFREG | 0644);
	put_file(fd, 10, "/dev/pts/3", CKF_UNLIMITED, S_IFCHR | 0620);
	put_file(fd, 11, "/dev/pts/ptmx", CKF_UNLIMITED, S_IFCHR | 0666);
	put_tcp(fd, 1);	 /* ESTABLISHED */
	put_tcp(fd, 10); /* LISTEN */
	put_tcp(fd, 7);	 /* CLOSE */
	put_tcp(fd, 8);	 /* CLOSE_WAIT */
	put_unix(fd, 0, "/run/own", 8);
	put_unix(fd, 1, "/run/peer/more", 9);
	put_unix(fd, 1, "\0abstract", 9);
	close(fd);
	remap.orig_id = 4;
	remap.remap_id = 1;
	nm_image(dir, "remap-fpath.img", CKF_REMAP_MAGIC, &remap.base);
}

static void put_tty(int fd, uint32_t id, TtyType type, bool settings)
{
	TtyInfoEntry e = TTY_INFO_ENTRY__INIT;
	TermiosEntry termios = TERMIOS_ENTRY__INIT;
	TtyPtyEntry pty = TTY_PTY_ENTRY__INIT;

	e.id = id;
	e.type = type;
	e.termios = settings ? &termios : NULL;
	pty.index = id / 2;
	e.pty = &pty;
	nm_put(fd, &e.base);
}

void nm_options(int dir)
{
	int fd = dm_image(dir, "tty-info.img", CKF_TTY_INFO_MAGIC);

	put_tty(fd, 13, TTY_TYPE__PTY, true); /* both ends of 6 */
	put_tty(fd, 12, TTY_TYPE__PTY, true);
	put_tty(fd, 10, TTY_TYPE__PTY, true); /* the slave of 5 alone */
	put_tty(fd, 8, TTY_TYPE__PTY, false); /* of 4, which hung up */
	put_tty(fd, 6, TTY_TYPE__CTTY, true);
	put_tty(fd, 17, TTY_TYPE__PTY, true); /* the master of 8 alone */
	close(fd);
	fd = dm_image(dir, "filelocks.img", CKF_FILE_LOCKS_MAGIC);
	for (int i = 0; i < 3; i++)
		dm_record(fd, "", 0);
	close(fd);
}

void nm_fs(int dir, uint32_t pid)
{
	FsEntry fs = FS_ENTRY__INIT;
	char name[32];

	fs.cwd_id = 3;
	fs.root_id = 5;
	snprintf(name, sizeof(name), "fs-%u.img", pid);
	nm_image(dir, name, CKF_FS_MAGIC, &fs.base);
}

void nm_core(int dir, const char *name, uint64_t xstate)
{
	CoreEntry core = CORE_ENTRY__INIT;
	ThreadInfoX86 info = THREAD_INFO_X86__INIT;
	UserX86RegsEntry regs = USER_X86_REGS_ENTRY__INIT;
	UserX86FpregsEntry fp = USER_X86_FPREGS_ENTRY__INIT;
	UserX86XsaveEntry xsave = USER_X86_XSAVE_ENTRY__INIT;

	core.mtype = CORE_ENTRY__MARCH__X86_64;
	core.thread_info = &info;
	info.gpregs = &regs;
	info.fpregs = &fp;
	fp.xsave = &xsave;
	xsave.xstate_bv = xstate;
	nm_image(dir, name, CKF_CORE_MAGIC, &core.base);
}

void nm_namespaces(int dir, uint32_t pid, uint32_t criu_pid_ns, uint32_t pid_ns)
{
	char name[32];
	TaskKobjIdsEntry own = TASK_KOBJ_IDS_ENTRY__INIT, ids = TASK_KOBJ_IDS_ENTRY__INIT;
	InventoryEntry inv = INVENTORY_ENTRY__INIT;

	own.has_pid_ns_id = own.has_mnt_ns_id = true;
	own.pid_ns_id = criu_pid_ns;
	own.mnt_ns_id = 4;
	ids = own;
	ids.pid_ns_id = pid_ns;
	inv.root_ids = &own;
	nm_image(dir, "inventory.img", CKF_INVENTORY_MAGIC, &inv.base);
	snprintf(name, sizeof(name), "ids-%u.img", pid);
	nm_image(dir, name, CKF_IDS_MAGIC, &ids.base);
}

void nm_machine(int dir)
{
	CpuinfoX86Entry cpu = CPUINFO_X86_ENTRY__INIT, *cpus = &cpu;
	CpuinfoEntry info = CPUINFO_ENTRY__INIT;
	MntEntry mnt = MNT_ENTRY__INIT;
	uint32_t words[CKF_CPU_WORDS + 3] = { 1, 2, 3 };

	cpu.cpu_family = 6;
	cpu.model = 143;
	cpu.model_id = "Some CPU";
	cpu.capability = words;
	cpu.n_capability = CKF_CPU_WORDS + 3;
	info.n_x86_entry = 1;
	info.x86_entry = &cpus;
	nm_image(dir, "cpuinfo.img", CKF_CPUINFO_MAGIC, &info.base);
	mnt.root = mnt.mountpoint = mnt.source = mnt.options = "/";
	nm_image(dir, "mountpoints-12.img", CKF_MNTS_MAGIC, &mnt.base);
	mnt.ext_key = "data";
	nm_image(dir, "mountpoints-13.img", CKF_MNTS_MAGIC, &mnt.base);
	dm_write(dir, "ghost-file-1.img", "0123456789", 10);
	dm_write(dir, "ghost-file-a.img", "0123456789", 10);
}
