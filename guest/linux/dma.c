// SPDX-License-Identifier: GPL-2.0-only
/*
 * DMA addresses are grants (section 3).
 *
 * Mapping a buffer grants its pages to the back end under consecutive
 * references, unmapping it ends the grants. Both are writes to the grant table,
 * no hypercalls. Small buffers go through the pool, and what the device writes
 * goes to pages that hold nothing else.
 *
 * These are the DMA operations of the xenbus device, the parent of the virtio
 * device. The virtio core uses them because VIRTIO_F_ACCESS_PLATFORM is always
 * negotiated; the drivers on top do not notice.
 */
#include <linux/dma-map-ops.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <xen/page.h>

#include "virtio_msg_xen.h"

static struct vmsg_dev *to_vmsg(struct device *dev)
{
	return dev_get_drvdata(dev);
}

static unsigned int pages_of(unsigned long offset, size_t size)
{
	return PFN_UP(offset_in_page(offset) + size);
}

static int grant(struct vmsg_dev *d, unsigned long pfn, unsigned int pages, bool readonly,
		 dma_addr_t *addr)
{
	grant_ref_t first;
	int err;

	err = vmsg_grants_take(&d->grants, order_base_2(pages), &first);
	if (unlikely(err))
		return err;

	vmsg_grant_pages(d->backend, first, pfn, pages, readonly);
	*addr = vmsg_grant_to_dma(first);
	return 0;
}

/*
 * The caller of a DMA function cannot be told that the back end clings to a
 * page. The kernel keeps such a page from being reused; its present content
 * cannot be protected any more. So this back end is not trusted with more.
 */
void vmsg_ungrant(struct vmsg_dev *d, dma_addr_t addr, unsigned int pages)
{
	unsigned int order = order_base_2(pages);
	grant_ref_t first = vmsg_dma_to_grant(addr);
	unsigned int rest = (1U << order) - pages;

	if (likely(vmsg_end_grants(first, pages))) {
		vmsg_grants_give(&d->grants, order, first);
		return;
	}
	if (rest)
		gnttab_free_grant_reference_seq(first + pages, rest);
	vmsg_channel_fail(d, "the back end still uses memory of a finished request");
}

static void *vmsg_dma_alloc(struct device *dev, size_t size, dma_addr_t *addr, gfp_t gfp,
			    unsigned long attrs)
{
	struct vmsg_dev *d = to_vmsg(dev);
	void *memory;

	if (size > VMSG_MAX_MAPPING)
		return NULL;
	memory = alloc_pages_exact(size, gfp | __GFP_ZERO);
	if (!memory)
		return NULL;

	/* Without a back end, queues exist but are broken: nothing to grant. */
	if (!vmsg_channel_is_open(d)) {
		*addr = virt_to_phys(memory);
		return memory;
	}
	if (grant(d, virt_to_pfn(memory), pages_of(0, size), false, addr)) {
		free_pages_exact(memory, size);
		return NULL;
	}
	return memory;
}

static void vmsg_dma_free(struct device *dev, size_t size, void *memory, dma_addr_t addr,
			  unsigned long attrs)
{
	if (addr & VMSG_DMA_GRANT)
		vmsg_ungrant(to_vmsg(dev), addr, pages_of(0, size));
	free_pages_exact(memory, size);
}

/*
 * Grants pages from vmsg_dma_alloc() anew: the back end is only to read them. To
 * be called before it is told of them. It may have guessed their references all
 * the same, and has itself to blame then.
 */
int vmsg_dma_protect(struct vmsg_dev *d, dma_addr_t addr, void *memory, unsigned int pages)
{
	grant_ref_t first = vmsg_dma_to_grant(addr);
	unsigned int i;

	if (!(addr & VMSG_DMA_GRANT))
		return -ENODEV;
	for (i = 0; i < pages; i++) {
		if (!gnttab_end_foreign_access_ref(first + i)) {
			vmsg_channel_fail(d, "the back end uses memory that it was not told of");
			return -EBUSY;
		}
		vmsg_grant_pages(d->backend, first + i, virt_to_pfn(memory) + i, 1, true);
	}
	return 0;
}

static dma_addr_t vmsg_dma_map_page(struct device *dev, struct page *page, unsigned long offset,
				    size_t size, enum dma_data_direction dir, unsigned long attrs)
{
	struct vmsg_dev *d = to_vmsg(dev);
	void *buffer = page_address(page) + offset;
	dma_addr_t addr;

	if (unlikely(!vmsg_channel_is_open(d) || !size || size > VMSG_MAX_MAPPING))
		return DMA_MAPPING_ERROR;
	if (vmsg_pool_map(d, buffer, size, dir, &addr))
		return addr;
	if (dir != DMA_TO_DEVICE && vmsg_bounce_needed(offset, size))
		return vmsg_bounce_map(d, buffer, size, dir, &addr) ? DMA_MAPPING_ERROR : addr;
	if (grant(d, page_to_pfn(page) + PFN_DOWN(offset), pages_of(offset, size),
		  dir == DMA_TO_DEVICE, &addr))
		return DMA_MAPPING_ERROR;
	return addr + offset_in_page(offset);
}

static void vmsg_dma_unmap_page(struct device *dev, dma_addr_t addr, size_t size,
				enum dma_data_direction dir, unsigned long attrs)
{
	struct vmsg_dev *d = to_vmsg(dev);
	bool written = dir != DMA_TO_DEVICE;
	bool copy_back = written && !(attrs & DMA_ATTR_SKIP_CPU_SYNC);

	if (vmsg_pool_owns(d, addr))
		vmsg_pool_unmap(d, addr, size, copy_back);
	else if (written && vmsg_bounce_needed(addr, size))
		vmsg_bounce_unmap(d, addr, size, copy_back);
	else
		vmsg_ungrant(d, addr, pages_of(addr, size));
}

static void vmsg_dma_unmap_sg(struct device *dev, struct scatterlist *sgl, int nents,
			      enum dma_data_direction dir, unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i)
		vmsg_dma_unmap_page(dev, sg_dma_address(sg), sg_dma_len(sg), dir, attrs);
}

static int vmsg_dma_map_sg(struct device *dev, struct scatterlist *sgl, int nents,
			   enum dma_data_direction dir, unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i) {
		sg_dma_address(sg) = vmsg_dma_map_page(dev, sg_page(sg), sg->offset, sg->length,
						       dir, attrs);
		if (sg_dma_address(sg) == DMA_MAPPING_ERROR) {
			vmsg_dma_unmap_sg(dev, sgl, i, dir, attrs | DMA_ATTR_SKIP_CPU_SYNC);
			return -EIO;
		}
		sg_dma_len(sg) = sg->length;
	}
	return nents;
}

static void vmsg_dma_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t size,
				  enum dma_data_direction dir)
{
	struct vmsg_dev *d = to_vmsg(dev);

	if (dir == DMA_TO_DEVICE)
		return;
	if (vmsg_pool_owns(d, addr))
		vmsg_pool_sync(d, addr, size, true);
	else
		vmsg_bounce_sync(d, addr, size, true);
}

static void vmsg_dma_sync_for_device(struct device *dev, dma_addr_t addr, size_t size,
				     enum dma_data_direction dir)
{
	struct vmsg_dev *d = to_vmsg(dev);

	/* The device does not read it, and the back end is not to. */
	if (dir == DMA_FROM_DEVICE)
		return;
	if (vmsg_pool_owns(d, addr))
		vmsg_pool_sync(d, addr, size, false);
	else if (dir == DMA_BIDIRECTIONAL)
		vmsg_bounce_sync(d, addr, size, false);
}

static void vmsg_dma_sync_sg_for_cpu(struct device *dev, struct scatterlist *sgl, int nents,
				     enum dma_data_direction dir)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i)
		vmsg_dma_sync_for_cpu(dev, sg_dma_address(sg), sg_dma_len(sg), dir);
}

static void vmsg_dma_sync_sg_for_device(struct device *dev, struct scatterlist *sgl, int nents,
					enum dma_data_direction dir)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i)
		vmsg_dma_sync_for_device(dev, sg_dma_address(sg), sg_dma_len(sg), dir);
}

/* Bit 63 is part of every address. */
static int vmsg_dma_supported(struct device *dev, u64 mask)
{
	return mask == DMA_BIT_MASK(64);
}

static size_t vmsg_dma_max_mapping_size(struct device *dev)
{
	return VMSG_MAX_MAPPING;
}

static const struct dma_map_ops vmsg_dma_ops = {
	.alloc			= vmsg_dma_alloc,
	.free			= vmsg_dma_free,
	.map_page		= vmsg_dma_map_page,
	.unmap_page		= vmsg_dma_unmap_page,
	.map_sg			= vmsg_dma_map_sg,
	.unmap_sg		= vmsg_dma_unmap_sg,
	.sync_single_for_cpu	= vmsg_dma_sync_for_cpu,
	.sync_single_for_device	= vmsg_dma_sync_for_device,
	.sync_sg_for_cpu	= vmsg_dma_sync_sg_for_cpu,
	.sync_sg_for_device	= vmsg_dma_sync_sg_for_device,
	.dma_supported		= vmsg_dma_supported,
	.max_mapping_size	= vmsg_dma_max_mapping_size,
};

/* Makes the xenbus device one that can do DMA. xenbus itself leaves it without a mask. */
void vmsg_dma_attach(struct vmsg_dev *d)
{
	struct device *dev = &d->xdev->dev;

	vmsg_grants_init(&d->grants);
	xa_init_flags(&d->bounced, XA_FLAGS_LOCK_IRQ);
	d->dma_mask = DMA_BIT_MASK(64);
	dev->dma_mask = &d->dma_mask;
	dev->coherent_dma_mask = DMA_BIT_MASK(64);
	dev->dma_parms = &d->dma_parms;
	dma_set_max_seg_size(dev, VMSG_MAX_MAPPING);
	set_dma_ops(dev, &vmsg_dma_ops);
}

/*
 * A kernel with CONFIG_XEN_VIRTIO takes each virtio device of a PV guest for one of
 * domain 0's, and puts its own DMA operations in place of these when the features
 * are agreed on. That is before the first buffer: queues come after it.
 */
void vmsg_dma_claim(struct vmsg_dev *d)
{
	set_dma_ops(&d->xdev->dev, &vmsg_dma_ops);
}

void vmsg_dma_detach(struct vmsg_dev *d)
{
	struct device *dev = &d->xdev->dev;

	set_dma_ops(dev, NULL);
	dev->dma_parms = NULL;
	dev->coherent_dma_mask = 0;
	dev->dma_mask = NULL;
	xa_destroy(&d->bounced);
	vmsg_grants_drain(&d->grants);
}
