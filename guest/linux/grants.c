// SPDX-License-Identifier: GPL-2.0-only
/*
 * Grant references, by the run.
 *
 * A mapping needs as many consecutive references as it has pages. The kernel
 * hands them out under one lock for the whole system, and looks through a
 * bitmap for a run of more than one. So each device keeps a small stock of
 * runs whose lengths are powers of two, and goes to the kernel only when that
 * is empty or full. None of this is a hypercall.
 */
#include <xen/page.h>

#include "virtio_msg_xen.h"

/* How many runs a stock has room for. */
static unsigned int stock_limit(unsigned int order)
{
	return VMSG_STOCK >> order;
}

/* The stocks lie one after the other: each has half as many runs as the one before. */
static grant_ref_t *stock(struct vmsg_grants *grants, unsigned int order)
{
	return &grants->first[2 * (VMSG_STOCK - stock_limit(order))];
}

void vmsg_grants_init(struct vmsg_grants *grants)
{
	spin_lock_init(&grants->lock);
}

void vmsg_grants_drain(struct vmsg_grants *grants)
{
	unsigned int order;
	unsigned long flags;

	spin_lock_irqsave(&grants->lock, flags);
	for (order = 0; order <= VMSG_MAX_ORDER; order++) {
		const grant_ref_t *first = stock(grants, order);
		unsigned int *count = &grants->count[order];

		while (*count)
			gnttab_free_grant_reference_seq(first[--*count], 1U << order);
	}
	spin_unlock_irqrestore(&grants->lock, flags);
}

/* Takes 2^order consecutive references that grant nothing yet. */
int vmsg_grants_take(struct vmsg_grants *grants, unsigned int order, grant_ref_t *first)
{
	unsigned int *count = &grants->count[order];
	unsigned long flags;
	bool found = false;
	int err;

	spin_lock_irqsave(&grants->lock, flags);
	if (*count) {
		*first = stock(grants, order)[--*count];
		found = true;
	}
	spin_unlock_irqrestore(&grants->lock, flags);
	if (found)
		return 0;

	err = gnttab_alloc_grant_reference_seq(1U << order, first);
	if (unlikely(err)) {
		/* What lies idle in the other stocks may be what is missing. */
		vmsg_grants_drain(grants);
		err = gnttab_alloc_grant_reference_seq(1U << order, first);
	}
	return err;
}

/* Returns references that grant nothing any more. */
void vmsg_grants_give(struct vmsg_grants *grants, unsigned int order, grant_ref_t first)
{
	unsigned int *count = &grants->count[order];
	unsigned long flags;
	bool kept = false;

	spin_lock_irqsave(&grants->lock, flags);
	if (*count < stock_limit(order)) {
		stock(grants, order)[(*count)++] = first;
		kept = true;
	}
	spin_unlock_irqrestore(&grants->lock, flags);
	if (!kept)
		gnttab_free_grant_reference_seq(first, 1U << order);
}

void vmsg_grant_pages(domid_t domid, grant_ref_t first, unsigned long pfn, unsigned int pages,
		      bool readonly)
{
	unsigned int i;

	for (i = 0; i < pages; i++)
		gnttab_grant_foreign_access_ref(first + i, domid, pfn_to_gfn(pfn + i), readonly);
}

/*
 * Ends the grants of @pages consecutive references. True: all have ended, and
 * the references are the caller's again. False: the back end still uses a
 * page. Then all the references are gone: those in use are left to the kernel,
 * which holds on to their pages until the back end lets go of them.
 */
bool vmsg_end_grants(grant_ref_t first, unsigned int pages)
{
	unsigned int i, ended;

	for (ended = 0; ended < pages; ended++)
		if (unlikely(!gnttab_end_foreign_access_ref(first + ended)))
			break;
	if (likely(ended == pages))
		return true;

	for (i = 0; i < ended; i++)
		gnttab_free_grant_reference(first + i);
	for (; i < pages; i++)
		gnttab_end_foreign_access(first + i, NULL);
	return false;
}
