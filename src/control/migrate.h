/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * migrate, query-migrate, migrate_cancel, migrate-pause, migrate-recover, migrate-set-parameters,
 * query-migrate-parameters: QMP's commands for a live migration; what QMP has not are more arguments of
 * migrate.
 */
#ifndef CONTROL_MIGRATE_H
#define CONTROL_MIGRATE_H

#include "control/qmp_server.h"
#include "engine/engine.h"

/* Each is a qmp_command's run; opaque is the Vm. */
bool migrate_command(void *opaque, json_t *args, json_t **ret_result, Error **errp);
bool migrate_query(void *opaque, json_t *args, json_t **ret_result, Error **errp);
bool migrate_cancel_command(void *opaque, json_t *args, json_t **ret_result, Error **errp);
bool migrate_pause_command(void *opaque, json_t *args, json_t **ret_result, Error **errp);
/* "migrate-backup": the backup moves to another standby. */
bool migrate_backup_command(void *opaque, json_t *args, json_t **ret_result, Error **errp);
bool migrate_recover_command(void *opaque, json_t *args, json_t **ret_result, Error **errp);
bool migrate_set_parameters(void *opaque, json_t *args, json_t **ret_result, Error **errp);
bool migrate_query_parameters(void *opaque, json_t *args, json_t **ret_result, Error **errp);

/* QMP's MigrationStatus: of a source, and of a destination. */
const char *migrate_status_name(const struct engine_status *s);

#endif
