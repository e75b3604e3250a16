// SPDX-License-Identifier: GPL-2.0-only
/*
 * Checking the small images of a fast image, which are CRIU's own and come as they are.
 *
 * All that CRIU interprets is checked before it is read. Contents of unlinked files may be large, and
 * CRIU only copies them. To check these first takes as long as to copy them, so a process does it at the
 * same time, and the tasks wait for its verdict before they run.
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "types.h"
#include "fast-files.h"
#include "fast-workers.h"
#include "log.h"

#include <ckfast.h>

#undef LOG_PREFIX
#define LOG_PREFIX "fast-image: "

/* The image, while it has files that are not checked. */
static const struct ckf_image *unchecked;
/* The process that checks them. */
static pid_t checker;

static int check(const struct ckf_image *img, enum ckf_files which)
{
	struct ckf_error err = {};
	int ret = ckf_image_check_files(img, which, &err);

	if (ret == -EBADMSG)
		pr_err("The images are not those that " CKF_IDX_NAME " was made for. After another dump into this "
		       "directory remove " CKF_IDX_NAME " and " CKF_PACK_NAME ", and convert the dump again\n");
	if (ret)
		pr_err("%s\n", err.msg);
	return ret ? -1 : 0;
}

int fast_files_open(const struct ckf_image *img)
{
	if (check(img, CKF_FILES_FIRST))
		return -1;
	if (ckf_image_has_later_files(img))
		unchecked = img;
	return 0;
}

int fast_files_check_now(void)
{
	const struct ckf_image *img = unchecked;

	unchecked = NULL;
	return img ? check(img, CKF_FILES_LATER) : 0;
}

static pid_t start_checker(void)
{
	pid_t pid = fast_workers_fork();

	if (pid)
		return pid;
	_exit(fast_files_check_now() ? 1 : 0);
}

int fast_files_begin(void)
{
	const struct ckf_budget one = { .workers = 1 };
	struct fast_workers w = { .budget = &one };

	if (!unchecked)
		return 0;
	/* Its id is none of the image, and the last id is afterwards what it was. */
	if (fast_workers_before(&w, 1))
		checker = start_checker();
	fast_workers_after(&w);
	if (checker > 0 && fast_workers_id_ok(&w, checker)) {
		kill(checker, SIGKILL);
		waitpid(checker, NULL, __WCLONE);
		checker = 0;
	}
	/* From here on it is one of the few that CRIU itself may have. */
	fast_workers_end(&w);
	if (checker <= 0)
		return fast_files_check_now();
	pr_info("Process %d checks the contents of unlinked files\n", checker);
	return 0;
}

int fast_files_end(void)
{
	int status;

	if (checker <= 0)
		return 0;
	while (waitpid(checker, &status, __WCLONE) < 0) {
		if (errno == EINTR)
			continue;
		pr_perror("Can't wait for process %d", checker);
		return -1;
	}
	checker = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		pr_err("The contents of unlinked files are not as they should be: see above (status %#x)\n", status);
		return -1;
	}
	return 0;
}
